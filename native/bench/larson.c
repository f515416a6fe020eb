/* A server under load, after Larson and Krishnan: every thread replaces random blocks of its set and at its end hands the
 * whole set to a successor thread, which then frees what it never allocated. One replacement (free, malloc) is one op. */
#include "bench.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static int64_t cycles = 10000000, threads = 2, min_size = -1, max_size = -1, blocks = -1, rounds = 100, seed = 1234567;
static const char *profile = "classic";

static const bench_option options[] = {
    {.name = "cycles", .help = "replacements by all threads together", .number = &cycles, .lo = 1, .hi = 1000000000000},
    {.name = "seed", .help = "of the generator", .number = &seed, .lo = 1, .hi = UINT32_MAX},
    {.name = "threads", .help = "at work at once", .number = &threads, .lo = 1, .hi = 256},
    {.name = "profile", .help = "sizes and blocks", .text = &profile, .choices = "tiny classic mixed large"},
    {.name = "min", .help = "smallest block in bytes, -1: of the profile", .number = &min_size, .lo = -1, .hi = 1 << 30},
    {.name = "max", .help = "largest block in bytes, -1: of the profile", .number = &max_size, .lo = -1, .hi = 1 << 30},
    {.name = "blocks", .help = "held by a thread, -1: of the profile", .number = &blocks, .lo = -1, .hi = 100000000},
    {.name = "rounds",
     .help = "a thread hands over after so many replacements a block",
     .number = &rounds,
     .lo = 1,
     .hi = 1000000000},
    {0}};
static const bench_spec spec = {"larson", "Threads replace random blocks and hand them to successor threads.", options, 2};

static const struct {
    const char *name;
    int64_t min, max, blocks;
} profiles[] = {{"tiny", 8, 128, 1024}, {"classic", 8, 1000, 5000}, {"mixed", 16, 16384, 2000}, {"large", 16384, 262144, 200}};

typedef struct {
    char **slots;
    uint32_t state;
    int64_t left; /* replacements to do in this region */
    int64_t generations;
} lane;

static lane *lanes;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t finished = PTHREAD_COND_INITIALIZER;
static int64_t running;

static void apply_profile(void) {
    for (size_t i = 0; i < sizeof profiles / sizeof *profiles; i++) {
        if (strcmp(profiles[i].name, profile) != 0) continue;
        if (min_size < 0) min_size = profiles[i].min;
        if (max_size < 0) max_size = profiles[i].max;
        if (blocks < 0) blocks = profiles[i].blocks;
    }
    if (blocks == 0) blocks = 1;
    if (min_size == 0) min_size = 1;
    if (min_size > max_size) bench_refuse("--min=%lld is above --max=%lld", (long long)min_size, (long long)max_size);
}

static char *new_block(uint32_t r) {
    size_t size = (size_t)min_size + r % (uint32_t)(max_size - min_size + 1);
    char *p = bench_got(malloc(size));
    p[0] = p[size - 1] = (char)r;
    return p;
}

static void *work(void *argument) {
    lane *own = argument;
    int64_t turn = rounds * blocks < own->left ? rounds * blocks : own->left;
    uint32_t state = own->state;
    for (int64_t i = 0; i < turn; i++) {
        char **slot = &own->slots[bench_random(&state) % (uint32_t)blocks];
        free(*slot);
        *slot = new_block(bench_random(&state));
    }
    own->state = state;
    own->left -= turn;
    own->generations++;
    if (own->left > 0) {
        bench_start_thread(work, own);
        return NULL;
    }
    pthread_mutex_lock(&mutex);
    if (--running == 0) pthread_cond_signal(&finished);
    pthread_mutex_unlock(&mutex);
    return NULL;
}

static void run(int64_t count) {
    if (count == 0) return;
    running = threads;
    for (int64_t i = 0; i < threads; i++) {
        lanes[i].left = count / threads + (i < count % threads);
        bench_start_thread(work, &lanes[i]);
    }
    pthread_mutex_lock(&mutex);
    while (running > 0) pthread_cond_wait(&finished, &mutex);
    pthread_mutex_unlock(&mutex);
}

int bench_main(int argc, char **argv) {
    bench_init(argc, argv, &spec);
    apply_profile();
    lanes = bench_got(calloc((size_t)threads, sizeof *lanes));
    for (int64_t i = 0; i < threads; i++) {
        lanes[i].slots = bench_got(calloc((size_t)blocks, sizeof(char *)));
        lanes[i].state = bench_stream(seed, (uint32_t)i);
        for (int64_t k = 0; k < blocks; k++) lanes[i].slots[k] = new_block(bench_random(&lanes[i].state));
    }
    run(bench_warmup(cycles));
    bench_phase("warm");
    for (int64_t i = 0; i < threads; i++) lanes[i].generations = 0;
    bench_timed_begin();
    run(cycles);
    bench_timed_end();
    bench_phase("done");
    int64_t generations = 0;
    for (int64_t i = 0; i < threads; i++) {
        generations += lanes[i].generations;
        for (int64_t k = 0; k < blocks; k++) free(lanes[i].slots[k]);
        free(lanes[i].slots);
    }
    free(lanes);
    bench_extra("threads_started", (double)generations);
    return bench_report((uint64_t)cycles, (uint64_t)cycles, (uint64_t)(threads * blocks));
}
