/* One thread allocates, another frees: every block goes home through the remote path. One block passed is one op. */
#include "bench.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { BATCH = 64, SPINS = 2000 };

static int64_t cycles = 10000000, size = 64, pairs = 1, backlog = 4096;

static const bench_option options[] = {
    {.name = "cycles", .help = "blocks passed by all pairs together", .number = &cycles, .lo = 1, .hi = 1000000000000},
    {.name = "size", .help = "of a block in bytes", .number = &size, .lo = 1, .hi = 1 << 26},
    {.name = "pairs", .help = "of a producer and a consumer", .number = &pairs, .lo = 1, .hi = 128},
    {.name = "backlog", .help = "most blocks under way in a pair", .number = &backlog, .lo = BATCH, .hi = 1 << 24},
    {0}};
static const bench_spec spec = {"producer_consumer", "One thread allocates, another frees.", options, 1};

/* Ring with one writer and one reader; both publish their position once a batch. */
typedef struct {
    _Alignas(128) _Atomic uint64_t written;
    _Alignas(128) _Atomic uint64_t read;
    _Alignas(128) char **slots;
    uint64_t count;
    pthread_t producer, consumer;
} ring;

static ring *rings;

/* Waits until the other side's position has reached `goal`. */
static void wait_for(_Atomic uint64_t *position, uint64_t goal) {
    for (int spins = 0; atomic_load_explicit(position, memory_order_acquire) < goal; spins++)
        if (spins >= SPINS) sched_yield();
}

static uint64_t batch_end(uint64_t at, uint64_t count) { return at + BATCH < count ? at + BATCH : count; }

static void *produce(void *argument) {
    ring *own = argument;
    for (uint64_t at = 0; at < own->count;) {
        uint64_t end = batch_end(at, own->count);
        if (end > (uint64_t)backlog) wait_for(&own->read, end - (uint64_t)backlog);
        for (; at < end; at++) {
            char *p = bench_got(malloc((size_t)size));
            *p = (char)at;
            own->slots[at % (uint64_t)backlog] = p;
        }
        atomic_store_explicit(&own->written, at, memory_order_release);
    }
    return NULL;
}

static void *consume(void *argument) {
    ring *own = argument;
    for (uint64_t at = 0; at < own->count;) {
        uint64_t end = batch_end(at, own->count);
        wait_for(&own->written, end);
        for (; at < end; at++) free(own->slots[at % (uint64_t)backlog]);
        atomic_store_explicit(&own->read, at, memory_order_release);
    }
    return NULL;
}

static void run(int64_t count) {
    for (int64_t i = 0; i < pairs; i++) {
        ring *pair = &rings[i];
        pair->count = (uint64_t)(count / pairs + (i < count % pairs));
        atomic_store(&pair->written, 0);
        atomic_store(&pair->read, 0);
        if (pthread_create(&pair->producer, NULL, produce, pair) != 0 || pthread_create(&pair->consumer, NULL, consume, pair) != 0)
            bench_die("cannot start a thread");
    }
    for (int64_t i = 0; i < pairs; i++) {
        pthread_join(rings[i].producer, NULL);
        pthread_join(rings[i].consumer, NULL);
    }
}

int bench_main(int argc, char **argv) {
    bench_init(argc, argv, &spec);
    rings = bench_got(aligned_alloc(_Alignof(ring), (size_t)pairs * sizeof *rings));
    for (int64_t i = 0; i < pairs; i++) rings[i].slots = bench_got(calloc((size_t)backlog, sizeof(char *)));
    run(bench_warmup(cycles));
    bench_phase("warm");
    bench_timed_begin();
    run(cycles);
    bench_timed_end();
    bench_phase("done");
    for (int64_t i = 0; i < pairs; i++) free(rings[i].slots);
    free(rings);
    return bench_report((uint64_t)cycles, (uint64_t)cycles, (uint64_t)(pairs * backlog));
}
