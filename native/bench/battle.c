/* The battle test: n small blocks held at once through an array of pointers, then everything given back. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

static int64_t blocks = 1000000, size = 16;

static const bench_option options[] = {{.name = "blocks", .help = "held at once", .number = &blocks, .lo = 1, .hi = 100000000},
                                       {.name = "size", .help = "of a block in bytes", .number = &size, .lo = 1, .hi = 1 << 20},
                                       {0}};
static const bench_spec spec = {"battle", "Many equal blocks held at once; memory when filled and after each kind of free.",
                                options, 1};

int main(int argc, char **argv) {
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
