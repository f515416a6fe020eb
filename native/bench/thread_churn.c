/* Threads that die while their blocks live on: each generation of threads frees what the generation before left behind (every
 * thread the blocks of another one) and leaves blocks of its own. One block (malloc, later free) is one op. */
#include "bench.h"

#include <pthread.h>
#include <stdlib.h>

static int64_t generations = 500, threads = 2, blocks = 5000, min_size = 16, max_size = 1039, seed = 1234567;

static const bench_option options[] = {
    {.name = "generations", .help = "of threads", .number = &generations, .lo = 1, .hi = 100000000},
    {.name = "seed", .help = "of the generator", .number = &seed, .lo = 1, .hi = UINT32_MAX},
    {.name = "threads", .help = "in a generation", .number = &threads, .lo = 1, .hi = 256},
    {.name = "blocks", .help = "that a thread leaves behind", .number = &blocks, .lo = 1, .hi = 100000000},
    {.name = "min", .help = "smallest block in bytes", .number = &min_size, .lo = 1, .hi = 1 << 26},
    {.name = "max", .help = "largest block in bytes", .number = &max_size, .lo = 1, .hi = 1 << 26},
    {0}};
static const bench_spec spec = {"thread_churn", "Threads die while their blocks live on and are freed elsewhere.", options, 2};

typedef struct {
    char **inherited; /* set of another thread of the generation before; entries may be NULL */
    uint32_t state;
    pthread_t id;
} worker;

static worker *workers;
static char ***sets; /* threads sets of pointers */
static uint32_t generation_number;

static void *work(void *argument) {
    worker *own = argument;
    char **inherited = own->inherited;
    uint32_t state = own->state; /* threads' records share a cache line: none is written to meanwhile */
    for (int64_t i = 0; i < blocks; i++) {
        free(inherited[i]);
        size_t block_size = (size_t)min_size + bench_random(&state) % (uint32_t)(max_size - min_size + 1);
        inherited[i] = bench_got(malloc(block_size));
        inherited[i][0] = inherited[i][block_size - 1] = (char)i;
    }
    return NULL;
}

static void run(int64_t count) {
    for (; count > 0; count--, generation_number++) {
        for (int64_t i = 0; i < threads; i++) {
            workers[i].inherited = sets[(i + generation_number) % threads];
            workers[i].state = bench_stream(seed, generation_number * (uint32_t)threads + (uint32_t)i);
            if (pthread_create(&workers[i].id, NULL, work, &workers[i]) != 0) bench_die("cannot start a thread");
        }
        for (int64_t i = 0; i < threads; i++) pthread_join(workers[i].id, NULL);
    }
}

int bench_main(int argc, char **argv) {
    bench_init(argc, argv, &spec);
    if (min_size > max_size) bench_refuse("--min=%d is above --max=%d", (int)min_size, (int)max_size);
    workers = bench_got(calloc((size_t)threads, sizeof *workers));
    sets = bench_got(calloc((size_t)threads, sizeof *sets));
    for (int64_t i = 0; i < threads; i++) sets[i] = bench_got(calloc((size_t)blocks, sizeof(char *)));
    run(bench_warmup(generations));
    bench_phase("warm");
    bench_timed_begin();
    run(generations);
    bench_timed_end();
    bench_phase("done");
    for (int64_t i = 0; i < threads; i++) {
        for (int64_t k = 0; k < blocks; k++) free(sets[i][k]);
        free(sets[i]);
    }
    free(sets);
    free(workers);
    return bench_report((uint64_t)(generations * threads * blocks), (uint64_t)generations, (uint64_t)(threads * blocks));
}
