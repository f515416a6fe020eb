/* The user's benchmark: one xorshift32 draw a cycle picks a slot; an occupied slot is freed, an empty one gets 16..1039 bytes.
 * -DBENCH_NULL builds the same loop over an inline bump pointer: what the loop costs without an allocator. */
#include "bench.h"

#include <stdlib.h>

#ifdef BENCH_NULL
enum { ARENA = 1 << 16 };
static char arena[ARENA + 2048];
static size_t arena_next;
static inline void *bump(size_t size) {
    char *p = arena + arena_next;
    arena_next = (arena_next + size) & (ARENA - 1);
    return p;
}
#define take(size) bump(size)
#define give(p) ((void)(p))
#define NAME "random_mixed_null"
#else
#define take(size) malloc(size)
#define give(p) free(p)
#define NAME "random_mixed"
#endif

static int64_t cycles = 20000000, ws = 400, seed = 1234567;

static const bench_option options[] = {{.name = "cycles", .help = "operations", .number = &cycles, .lo = 1, .hi = 1000000000000},
                                       {.name = "ws", .help = "slots", .number = &ws, .lo = 1, .hi = 100000000},
                                       {.name = "seed", .help = "of the generator", .number = &seed, .lo = 1, .hi = UINT32_MAX},
                                       {0}};
static const bench_spec spec = {NAME, "Random malloc and free of 16..1039 bytes over a set of slots.", options, 3};

__attribute__((noinline, aligned(64))) static void run(char **slots, uint32_t slot_count, uint32_t state, int64_t count) {
    for (; count > 0; count--) {
        uint32_t r = bench_random(&state);
        char **slot = &slots[r % slot_count];
        if (*slot) {
            give(*slot);
            *slot = NULL;
        } else {
            char *p = bench_got(take(bench_mixed_size(r)));
            *p = (char)r;
            *slot = p;
        }
    }
}

int bench_main(int argc, char **argv) {
    bench_init(argc, argv, &spec);
    char **slots = bench_got(calloc((size_t)ws, sizeof *slots));
    run(slots, (uint32_t)ws, bench_stream(seed, 1), bench_warmup(cycles));
    bench_phase("warm");
    bench_timed_begin();
    run(slots, (uint32_t)ws, bench_stream(seed, 0), cycles);
    bench_timed_end();
    bench_phase("done");
    for (int64_t i = 0; i < ws; i++) give(slots[i]);
    free(slots);
    return bench_report((uint64_t)cycles, (uint64_t)cycles, (uint64_t)ws);
}
