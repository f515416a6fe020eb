/* What the recorder writes: chunks, each of one lane (a thread at a time), filled from the start; a record of 0 ends it. */
#ifndef RECORD_H
#define RECORD_H

#include <stdint.h>

enum { RECORD_OP_SHIFT = 48, RECORD_ALIGN_SHIFT = 8, RECORDS_A_CHUNK = 10922 };

enum record_op {
    RECORD_MALLOC = 1,
    RECORD_CALLOC,
    RECORD_MOVE_FROM, /* realloc is about to give this block back */
    RECORD_MOVE_TO,   /* and got this one; NULL: it kept the old one */
    RECORD_ALIGNED,
    RECORD_FREE,
    RECORD_EXIT /* the thread ends */
};

typedef struct {
    uint64_t what; /* address; op above bit 48, the power of two of an alignment above bit 56 */
    uint64_t size;
    uint64_t tick; /* counts all records of the process */
} record;

typedef struct {
    uint64_t lane, reserved;
    record records[RECORDS_A_CHUNK];
} record_chunk;

_Static_assert(sizeof(record_chunk) == 256 << 10, "a whole number of pages");

#endif
