/* Where every resident megabyte is: random_mixed whose blocks are written whole, then, with the last set held, a look at the process by
 * what the kernel tells of each mapping, by the allocator's own census where it has one, and page by page. */
#include "bench.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The allocator under test may tell where its memory is; returns the bytes needed, like snprintf. */
extern size_t hakmem_residency_json(char *buf, size_t size) __attribute__((weak));

enum { TEXT_BYTES = 100000, MAPPINGS = 4096, UNIT = 1 << 16, LEAST_PAGE = 4096 };

static int64_t cycles = 2000000, ws = 40000, seed = 1234567;

static const bench_option options[] = {{.name = "cycles", .help = "operations", .number = &cycles, .lo = 1, .hi = 1000000000000},
                                       {.name = "ws", .help = "slots", .number = &ws, .lo = 1, .hi = 100000000},
                                       {.name = "seed", .help = "of the generator", .number = &seed, .lo = 1, .hi = UINT32_MAX},
                                       {0}};
static const bench_spec spec = {"tax", "Where the resident memory of random_mixed is, mapping by mapping.", options, 3};

/* ---- the workload: a block begins with the number that its size follows from ---- */

static size_t live_bytes, live_blocks;

static void churn(char **slots, uint32_t state, int64_t count) {
    for (; count > 0; count--) {
        uint32_t r = bench_random(&state);
        char **slot = &slots[r % (uint32_t)ws];
        if (*slot) {
            free(*slot);
            *slot = NULL;
        } else {
            size_t size = bench_mixed_size(r);
            *slot = bench_got(malloc(size));
            memset(*slot, 0x5A, size);
            memcpy(*slot, &r, sizeof r);
        }
    }
}

static void count_live(char **slots) {
    live_bytes = (size_t)ws * sizeof *slots;
    live_blocks = 1;
    for (int64_t i = 0; i < ws; i++) {
        uint32_t r;
        if (!slots[i]) continue;
        memcpy(&r, slots[i], sizeof r);
        live_bytes += bench_mixed_size(r);
        live_blocks++;
    }
}

/* ---- mappings ---- */

enum owner { PROGRAM, LIBRARIES, ALLOCATOR, STACK, HEAP, ANONYMOUS, OWNERS };
static int64_t rss_kb[OWNERS];
static struct {
    uintptr_t from, to;
} anonymous[MAPPINGS];
static int anonymous_count;
static char own_path[4096];

static enum owner owner_of(const char *path, bool behind, enum owner before) {
    static const char *const allocators[] = {"/libhakmem",   "/libmimalloc",  "/libjemalloc",
                                             "/libtcmalloc", "/libtbbmalloc", "/hakmem."};
    if (*path == '/') {
        for (size_t i = 0; i < sizeof allocators / sizeof *allocators; i++)
            if (strstr(path, allocators[i])) return ALLOCATOR;
        return strcmp(path, own_path) == 0 ? PROGRAM : LIBRARIES;
    }
    if (strcmp(path, "[heap]") == 0) return HEAP;
    if (strcmp(path, "[stack]") == 0) return STACK;
    if (*path == '[' && strncmp(path, "[anon", 5) != 0) return LIBRARIES; /* what the kernel maps into every process */
    return behind && before <= ALLOCATOR ? before : ANONYMOUS; /* variables without a value stand behind their file */
}

static void read_line(const char *line) {
    static enum owner owner;
    static uintptr_t end;
    uintptr_t from, to;
    char path[256] = "";
    if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*s %*s %*s %*s %255s", &from, &to, path) >= 2) {
        owner = owner_of(path, from == end, owner);
        end = to;
        if (owner < HEAP) return;
        if (anonymous_count == MAPPINGS) bench_die("more than %d mappings", MAPPINGS);
        anonymous[anonymous_count].from = from;
        anonymous[anonymous_count++].to = to;
    } else if (strncmp(line, "Rss:", 4) == 0) {
        int64_t kb = strtoll(line + 4, NULL, 10);
        rss_kb[owner] += kb;
        if (kb == 0 && owner >= HEAP) anonymous_count--; /* what is only reserved has no pages, and may be terabytes */
    }
}

static void read_mappings(void) {
    static char buffer[4096];
    size_t have = 0;
    ssize_t got = readlink("/proc/self/exe", own_path, sizeof own_path - 1);
    int fd = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || got < 0) bench_die("/proc/self/smaps cannot be read");
    while ((got = read(fd, buffer + have, sizeof buffer - 1 - have)) > 0) {
        char *line = buffer, *next;
        buffer[have += (size_t)got] = 0;
        for (; (next = strchr(line, '\n')); line = next + 1) {
            *next = 0;
            read_line(line);
        }
        have -= (size_t)(line - buffer);
        memmove(buffer, line, have);
    }
    close(fd);
}

/* ---- pages: [[number of 64 KiB of addresses, resident pages of them], ..] of what no file is behind ---- */

static char pages_text[TEXT_BYTES];

static void read_pages(void) {
    const uint64_t ours = UINT64_C(1) << 63 | UINT64_C(1) << 56; /* present, and not the page of zeros that all share */
    size_t n = 0, page = (size_t)sysconf(_SC_PAGESIZE);
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    n += (size_t)snprintf(pages_text, sizeof pages_text, "[");
    for (int i = 0; fd >= 0 && i < anonymous_count; i++)
        for (uintptr_t unit = anonymous[i].from / UNIT; unit * UNIT < anonymous[i].to; unit++) {
            uint64_t words[UNIT / LEAST_PAGE];
            uintptr_t from = unit * UNIT < anonymous[i].from ? anonymous[i].from : unit * UNIT;
            uintptr_t to = (unit + 1) * UNIT > anonymous[i].to ? anonymous[i].to : (unit + 1) * UNIT;
            size_t count = (to - from) / page, resident = 0;
            if (pread(fd, words, count * 8, (off_t)(from / page * 8)) != (ssize_t)(count * 8)) continue;
            for (size_t k = 0; k < count; k++) resident += (words[k] & ours) == ours;
            if (n + 64 > sizeof pages_text) bench_die("too much memory to be described page by page; take a smaller --ws");
            if (resident) n += (size_t)snprintf(pages_text + n, 64, "%s[%zu,%zu]", n > 1 ? "," : "", (size_t)unit, resident);
        }
    snprintf(pages_text + n, 2, "]");
    if (fd >= 0) close(fd);
}

/* ---- */

int bench_main(int argc, char **argv) {
    static char census[TEXT_BYTES];
    static const char *const names[OWNERS] = {"program_kb", "libraries_kb", "allocator_kb", "stack_kb", "heap_kb", "anonymous_kb"};
    bench_init(argc, argv, &spec);
    live_bytes = live_blocks = 0;
    memset(rss_kb, 0, sizeof rss_kb);
    char **slots = bench_got(calloc((size_t)ws, sizeof *slots));
    churn(slots, bench_stream(seed, 1), bench_warmup(cycles));
    bench_phase("warm");
    bench_timed_begin();
    churn(slots, bench_stream(seed, 0), cycles);
    bench_timed_end();
    count_live(slots);
    read_mappings();
    bench_phase("held"); /* afterwards: what looking has touched is in both */
    for (int i = 0; i < OWNERS; i++) bench_extra(names[i], (double)rss_kb[i]);
    bench_extra("live_kb", (double)live_bytes / 1024);
    bench_extra("live_blocks", (double)live_blocks);
    if (hakmem_residency_json) {
        size_t need = hakmem_residency_json(census, sizeof census);
        if (need >= sizeof census) bench_die("too much memory to be described slab by slab; take a smaller --ws");
        if (need) bench_extra_json("residency", census);
    }
    bench_extra("page_kb", (double)sysconf(_SC_PAGESIZE) / 1024);
    read_pages();
    bench_extra_json("pages", pages_text);
    for (int64_t i = 0; i < ws; i++) free(slots[i]);
    free(slots);
    return bench_report((uint64_t)cycles, (uint64_t)cycles, (uint64_t)ws);
}
