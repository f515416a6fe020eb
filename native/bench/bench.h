/* What every driver shares: options, memory and time of the run, the result lines. Allocates nothing: the heap belongs to the workload.
 *
 *   bench_init           parse the arguments, remember the RSS at start
 *   bench_timed_begin    ... the timed region (several are added up) ...   bench_timed_end
 *   bench_phase          read memory at a phase mark
 *   bench_extra          a figure of the driver's own
 *   bench_report         print `Throughput = ...`, `[RSS] max_kb=...` and, with --json, one JSON line
 */
#ifndef BENCH_H
#define BENCH_H

#include "options.h"
#include "process.h"
#include "say.h"

#include <stddef.h>
#include <stdint.h>

enum bench_touch { BENCH_TOUCH_NONE, BENCH_TOUCH_FIRST, BENCH_TOUCH_PAGE, BENCH_TOUCH_FULL };
#define BENCH_TOUCH_CHOICES "none first page full" /* of a block's new bytes */

void bench_init(int argc, char **argv, const bench_spec *spec);
int64_t bench_warmup(int64_t run); /* untimed iterations before a run of so many, after HAKMEM_BENCH_PREFAULT */
void bench_timed_begin(void);
void bench_timed_end(void);
void bench_timed_exclude(double seconds); /* what a driver spent on itself inside the timed region: not of its seconds */
void bench_phase(const char *format, ...) __attribute__((format(printf, 1, 2)));
void bench_extra(const char *name, double value);
void bench_extra_json(const char *name, const char *json); /* the text stays until the report */
int bench_report(uint64_t ops, uint64_t iter, uint64_t ws); /* returns main's exit status */
int bench_main(int argc,
               char **argv); /* every driver has one; static state is set anew in it, for it may run again: see epochs.h */

double bench_timed_seconds(void);
void bench_sleep_ms(double ms);
void bench_start_thread(void *(*work)(void *), void *argument); /* detached; dies when there is none to be had */
enum bench_touch bench_touch_named(const char *name);
void bench_touch(void *p, size_t begin, size_t end, enum bench_touch how);

/* xorshift32 with the shifts 13, 17, 5; the state is never 0. */
static inline uint32_t bench_random(uint32_t *state) {
    uint32_t r = *state;
    r ^= r << 13;
    r ^= r >> 17;
    r ^= r << 5;
    return *state = r;
}

/* The generator's state for a stream of its own (a thread, the warm-up), never 0. */
static inline uint32_t bench_stream(int64_t seed, uint32_t stream) {
    uint32_t mixed = (uint32_t)seed ^ (stream * UINT32_C(0x9E3779B9));
    return mixed ? mixed : UINT32_C(0x9E3779B9);
}

/* 16..1039 bytes, the sizes of random_mixed. */
static inline size_t bench_mixed_size(uint32_t r) { return 16 + (r & 0x3FF); }

/* An allocation that failed ends the run with a message instead of a wild write. */
static inline void *bench_got(void *p) {
    if (__builtin_expect(p == NULL, 0)) bench_die("the allocator returned NULL: out of memory");
    return p;
}

#endif
