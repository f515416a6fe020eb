/* An opened trace, checked event for event: whoever replays it need not look again. What is wrong ends the program with 2. */
#ifndef TRACE_READER_H
#define TRACE_READER_H

#include <hakmem_trace.h>
#include <stddef.h>

extern trace_header header;
extern char mark_names[TRACE_MAX_MARKS][TRACE_MARK_BYTES];
extern _Atomic uint64_t *slots; /* header.slots words, all 0 */
extern uint64_t all_ops, timed_ops; /* calls of the allocator; of them, behind the warm-up */

void trace_open(const char *path);               /* stands at the first event then */
size_t trace_read(void *buffer, size_t size);    /* less than size at the end of the file */
void trace_rewind(void);                         /* to the first event */
void *trace_reserve(size_t size);                /* zeroed, not from the heap under test; untouched pages cost nothing */

#endif
