/* Threads share one set of slots: each puts a new block of 8..16000 bytes into a random slot and frees what it finds there, which
 * is another thread's block as often as its own. One replacement is one op; compare operations per CPU second. */
#include "bench.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>

static int64_t cycles = 4000000, slots_count = 2000, threads = 2, min_size = 8, max_size = 16000, seed = 1234567;

static const bench_option options[] = {
    {.name = "cycles", .help = "replacements by all threads together", .number = &cycles, .lo = 1, .hi = 1000000000000},
    {.name = "ws", .help = "slots shared by the threads", .number = &slots_count, .lo = 1, .hi = 100000000},
    {.name = "seed", .help = "of the generator", .number = &seed, .lo = 1, .hi = UINT32_MAX},
    {.name = "threads", .help = "at work", .number = &threads, .lo = 1, .hi = 256},
    {.name = "min", .help = "smallest block in bytes", .number = &min_size, .lo = 1, .hi = 1 << 26},
    {.name = "max", .help = "largest block in bytes", .number = &max_size, .lo = 1, .hi = 1 << 26},
    {0}};
static const bench_spec spec = {"cross", "Random sizes and frees across threads over shared slots.", options, 3};

typedef struct {
    pthread_t id;
    uint32_t state;
    int64_t count;
} worker;

static worker *workers;
static _Atomic(char *) *slots;

static void *work(void *argument) {
    worker *own = argument;
    uint32_t state = own->state; /* threads' records share a cache line: none is written to meanwhile */
    int64_t count = own->count;
    for (int64_t i = 0; i < count; i++) {
        size_t size = (size_t)min_size + bench_random(&state) % (uint32_t)(max_size - min_size + 1);
        char *p = bench_got(malloc(size));
        p[0] = p[size - 1] = (char)i;
        free(atomic_exchange(&slots[bench_random(&state) % (uint32_t)slots_count], p));
    }
    own->state = state;
    return NULL;
}

static void run(int64_t count) {
    for (int64_t i = 0; i < threads; i++) {
        workers[i].count = count / threads + (i < count % threads);
        if (pthread_create(&workers[i].id, NULL, work, &workers[i]) != 0) bench_die("cannot start a thread");
    }
    for (int64_t i = 0; i < threads; i++) pthread_join(workers[i].id, NULL);
}

static double cpu_seconds(void) {
    struct rusage now;
    getrusage(RUSAGE_SELF, &now);
    return (double)(now.ru_utime.tv_sec + now.ru_stime.tv_sec) + 1e-6 * (double)(now.ru_utime.tv_usec + now.ru_stime.tv_usec);
}

int bench_main(int argc, char **argv) {
    bench_init(argc, argv, &spec);
    if (min_size > max_size) bench_refuse("--min=%d is above --max=%d", (int)min_size, (int)max_size);
    workers = bench_got(calloc((size_t)threads, sizeof *workers));
    slots = bench_got(calloc((size_t)slots_count, sizeof *slots));
    for (int64_t i = 0; i < threads; i++) workers[i].state = bench_stream(seed, (uint32_t)i);
    run(bench_warmup(cycles));
    bench_phase("warm");
    double cpu_before = cpu_seconds();
    bench_timed_begin();
    run(cycles);
    bench_timed_end();
    double cpu = cpu_seconds() - cpu_before;
    bench_phase("done");
    for (int64_t i = 0; i < slots_count; i++) free(slots[i]);
    free(slots);
    free(workers);
    if (cpu > 0) bench_extra("ops_per_cpu_s", (double)cycles / cpu);
    return bench_report((uint64_t)cycles, (uint64_t)cycles, (uint64_t)slots_count);
}
