/* The battle test: n small blocks held at once through an array of pointers, then everything given back. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

/* The allocator under test may tell where its memory is; returns the bytes needed, like snprintf. */
extern size_t hakmem_residency_json(char *buf, size_t size) __attribute__((weak));

static int64_t blocks = 1000000, size = 16, census = 0;
static char census_text[1 << 20];

static const bench_option options[] = {
    {.name = "blocks", .help = "held at once", .number = &blocks, .lo = 1, .hi = 100000000},
    {.name = "size", .help = "of a block in bytes", .number = &size, .lo = 1, .hi = 1 << 20},
    {.name = "census", .help = "1: ask the allocator where its memory is, when filled", .number = &census, .lo = 0, .hi = 1},
    {0}};
static const bench_spec spec = {"battle", "Many equal blocks held at once; memory when filled and after each kind of free.",
                                options, 1};

int bench_main(int argc, char **argv) {
    bench_init(argc, argv, &spec);
    bench_timed_begin();
    char **pointers = bench_got(calloc((size_t)blocks, sizeof *pointers));
    for (int64_t i = 0; i < blocks; i++) {
        pointers[i] = bench_got(malloc((size_t)size));
        memset(pointers[i], (int)i, (size_t)size);
    }
    bench_timed_end();
    double fill_s = bench_timed_seconds();
    bench_phase("filled");
    if (census && hakmem_residency_json) {
        size_t need = hakmem_residency_json(census_text, sizeof census_text);
        if (need >= sizeof census_text) bench_die("hakmem_residency_json needs %zu bytes, there are %zu", need, sizeof census_text);
        if (need) bench_extra_json("residency", census_text);
    }
    bench_timed_begin();
    for (int64_t i = 0; i < blocks; i++) free(pointers[i]);
    bench_timed_end();
    bench_phase("blocks_freed");
    bench_timed_begin();
    free(pointers);
    bench_timed_end();
    bench_phase("pointers_freed");
    bench_extra("live_kb", (double)(blocks * (size + (int64_t)sizeof *pointers)) / 1024);
    bench_extra("fill_s", fill_s);
    bench_extra("free_s", bench_timed_seconds() - fill_s);
    return bench_report(2 * (uint64_t)blocks, (uint64_t)blocks, (uint64_t)blocks);
}
