/* What the kernel says of this process: its clock and its memory. Allocates nothing. */
#ifndef PROCESS_H
#define PROCESS_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

typedef struct {
    int64_t rss_kb, anon_kb, lazyfree_kb, peak_rss_kb; /* -1: the kernel does not say */
} bench_memory;

bench_memory bench_read_memory(void);
size_t bench_read_file(const char *path, char *buffer, size_t size); /* of /proc; returns the length, 0 where there is none */
int64_t bench_kilobytes(const char *text, const char *key); /* the number behind the key, -1 where it is not */

/* Seconds of the monotonic clock. */
static inline double bench_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

#endif
