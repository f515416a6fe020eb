/* A buffer that grows by half again and again, as a vector does, from 16 B to 64 MiB. One realloc is one op. */
#include "bench.h"

#include <stdlib.h>

static int64_t cycles = 50, first_bytes = 16, last_kb = 65536, buffers = 1;
static const char *touch_name = "page";

static const bench_option options[] = {
    {.name = "cycles", .help = "growths from the first to the last size", .number = &cycles, .lo = 1, .hi = 100000000},
    {.name = "first-bytes", .help = "first size in bytes", .number = &first_bytes, .lo = 2, .hi = 1 << 20},
    {.name = "last-kb", .help = "last size in KiB", .number = &last_kb, .lo = 1, .hi = 1 << 24},
    {.name = "buffers", .help = "growing side by side", .number = &buffers, .lo = 1, .hi = 10000},
    {.name = "touch", .help = "what of the new bytes is written", .text = &touch_name, .choices = BENCH_TOUCH_CHOICES},
    {0}};
static const bench_spec spec = {"realloc_growth", "Buffers that grow by half at a time.", options, 1};

/* Returns the number of reallocs. */
static uint64_t run(char **grown, int64_t count) {
    enum bench_touch touch = bench_touch_named(touch_name);
    size_t first = (size_t)first_bytes, last = (size_t)last_kb << 10;
    uint64_t ops = 0;
    for (; count > 0; count--) {
        for (size_t size = first, next; size < last; size = next) {
            next = size + size / 2 < last ? size + size / 2 : last;
            for (int64_t i = 0; i < buffers; i++, ops++) {
                grown[i] = bench_got(realloc(grown[i], next));
                bench_touch(grown[i], size == first ? 0 : size, next, touch);
            }
        }
        for (int64_t i = 0; i < buffers; i++) {
            free(grown[i]);
            grown[i] = NULL;
        }
    }
    return ops;
}

int bench_main(int argc, char **argv) {
    bench_init(argc, argv, &spec);
    if (first_bytes >= last_kb << 10) bench_refuse("--first-bytes=%d is not below --last-kb=%d", (int)first_bytes, (int)last_kb);
    char **grown = bench_got(calloc((size_t)buffers, sizeof *grown));
    run(grown, bench_warmup(cycles));
    bench_phase("warm");
    bench_timed_begin();
    uint64_t ops = run(grown, cycles);
    bench_timed_end();
    bench_phase("done");
    free(grown);
    return bench_report(ops, (uint64_t)cycles, (uint64_t)buffers);
}
