/* The bytes of a trace, as docs/traces.md and hakmem/traces/trace.py describe them: a header of fixed layout, the names of the
 * marks, a JSON text, padding up to `header_bytes`, then events. All little-endian. */
#ifndef HAKMEM_TRACE_H
#define HAKMEM_TRACE_H

#include <stdint.h>

#define TRACE_MAGIC "HAKTRACE"
#define TRACE_BYTE_ORDER UINT32_C(0x01020304)
enum { TRACE_VERSION = 1, TRACE_MAX_THREADS = 256, TRACE_MAX_MARKS = 100, TRACE_MARK_BYTES = 32, TRACE_MAX_ALIGN = 40 };
#define TRACE_MAX_TEXT (UINT32_C(1) << 20)
#define TRACE_MAX_SLOTS (UINT32_C(1) << 31)
#define TRACE_MAX_SIZE (UINT64_C(1) << 47)

enum trace_op {
    TRACE_MALLOC = 1,
    TRACE_CALLOC,
    TRACE_REALLOC,
    TRACE_ALIGNED,
    TRACE_FREE,
    TRACE_EXIT, /* the thread ends; a later event of its number starts another one */
    TRACE_MARK  /* a phase ends; `slot` counts the marks */
};

typedef struct {
    uint32_t slot;   /* holds at most one block at a time */
    uint16_t thread; /* who calls */
    uint8_t op;
    uint8_t align; /* of TRACE_ALIGNED: a power of two */
    uint64_t size; /* bytes asked for */
} trace_event;

typedef struct {
    char magic[8];
    uint32_t byte_order, version;
    uint32_t header_bytes, event_bytes; /* offset of the first event; 16 */
    uint64_t events, warm;              /* so many of the first ones are not timed */
    uint32_t slots, threads;
    uint64_t seed;
    uint32_t text_bytes, events_crc; /* CRC-32 (that of zlib) of the events */
    uint8_t sha256[32];              /* of the events */
    uint32_t marks;
    uint8_t reserved[24];
    uint32_t header_crc; /* CRC-32 of header_bytes bytes with this field 0 */
} trace_header;

_Static_assert(sizeof(trace_event) == 16 && sizeof(trace_header) == 128, "the layout of a trace");

#endif
