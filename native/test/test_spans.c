/* Spans: blocks of many MiB that come and go, whose pages move to where the next one stands. */
#include "test.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { SLOTS = 8, STEPS = 240, MIB = 1 << 20 };

static struct {
    char *block;
    size_t size;
    uint32_t key;
} slot[SLOTS];

static uint32_t state = 2463534242u;
static size_t some_size(void) { return MIB + next_random(&state) % (5 * MIB); }

static void replace(unsigned i, uint32_t key) {
    if (slot[i].block) CHECK(is_filled(slot[i].block, slot[i].size, slot[i].key));
    A(free)(slot[i].block);
    slot[i].size = some_size();
    slot[i].key = key;
    if (key % 4 == 0) { /* what moved here was somebody's: calloc must not trust it */
        CHECK((slot[i].block = A(calloc)(1, slot[i].size)));
        CHECK(is_zero(slot[i].block, slot[i].size));
    } else {
        CHECK((slot[i].block = A(malloc)(slot[i].size)));
    }
    fill(slot[i].block, slot[i].size, key);
}

static void contents_survive(void) {
    for (uint32_t step = 0; step < STEPS; step++) {
        unsigned i = next_random(&state) % SLOTS;
        replace(i, step);
        if (step % 16 == 0) { /* resizing moves pages too */
            size_t size = some_size(), kept = size < slot[i].size ? size : slot[i].size;
            CHECK((slot[i].block = A(realloc)(slot[i].block, size)));
            CHECK(is_filled(slot[i].block, kept & ~(size_t)7, slot[i].key));
            fill(slot[i].block, slot[i].size = size, slot[i].key);
        }
    }
    for (unsigned i = 0; i < SLOTS; i++) {
        CHECK(is_filled(slot[i].block, slot[i].size, slot[i].key));
        A(free)(slot[i].block);
        slot[i].block = NULL;
    }
}

/* Blocks of a 64 KiB unit. One is freed in a SuperSlab, then most in another: the next block goes where less is free. */
static void the_fullest_superslab_is_filled_first(void) {
    enum { UNITS = 32, COUNT = 4 * UNITS };
    static char *block[COUNT];
    unsigned full = COUNT, other = COUNT; /* first blocks of two SuperSlabs that are all ours */
    for (unsigned i = 0; i < COUNT; i++) CHECK((block[i] = A(malloc)(60000)));
    for (unsigned i = 0; i + UNITS <= COUNT; i++) {
        if ((uintptr_t)block[i] % (2 * MIB) != 0 || (uintptr_t)block[i + UNITS - 1] - (uintptr_t)block[i] >= 2 * MIB) continue;
        if (full == COUNT) full = i;
        else other = i;
    }
    CHECK(full < COUNT && other < COUNT);
    char *freed = block[full + 7], *next;
    A(free)(freed);
    for (unsigned i = 1; i < UNITS; i++) A(free)(block[other + i]);
    CHECK((next = A(malloc)(60000)) == freed);
    block[full + 7] = next;
    for (unsigned i = 0; i < COUNT; i++)
        if (i <= other || i >= other + UNITS) A(free)(block[i]);
}

#ifndef HAK_PREFIXED /* a sanitizer's own memory would be in the figure */
/* Without the moves the holes between spans stay resident: a quarter more than was ever held. Spans are whole SuperSlabs of 2 MiB. */
static void no_more_is_resident_than_was_held(void) {
    long before = resident_kb(), most_held = 0, most_resident = 0;
    for (uint32_t step = 0; step < STEPS; step++) {
        replace(next_random(&state) % SLOTS, step);
        long held = 0, now = resident_kb() - before;
        for (unsigned i = 0; i < SLOTS; i++) held += (long)((slot[i].size + 2 * MIB - 1) / (2 * MIB)) * 2048;
        if (held > most_held) most_held = held;
        if (now > most_resident) most_resident = now;
    }
    printf("# most held %ld KiB, most resident %ld KiB above the start\n", most_held, most_resident);
    CHECK(most_resident <= most_held + 1024);
}

static bool pages_can_move(void) {
    char *from = mmap(NULL, 2 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *to = from + MIB;
    CHECK(from != MAP_FAILED);
    bool can = mremap(from, MIB, MIB, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to) == to;
    munmap(from, 2 * MIB);
    return can;
}

/* Whether the kernel was asked not to put huge pages where p is. */
static bool pages_stay_small(const void *p) {
    char line[512];
    bool here = false, small = false;
    FILE *maps = fopen("/proc/self/smaps", "r");
    CHECK(maps);
    for (unsigned long from, to; fgets(line, sizeof line, maps);) {
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2) here = (uintptr_t)p - from < to - from;
        else if (here && strncmp(line, "VmFlags:", 8) == 0) small = strstr(line, " nh");
    }
    fclose(maps);
    return small;
}

static bool kernel_has_huge_pages(void) { return access("/sys/kernel/mm/transparent_hugepage/enabled", F_OK) == 0; }

static void pages_stay_small_in_what_is_mapped_anew(void) {
    for (int i = 0; i < 2; i++) { /* blocks of 32 MiB and more go back with their mapping */
        char *p = A(malloc)((size_t)40 << 20);
        CHECK(p && pages_stay_small(p));
        A(free)(p);
    }
}

static void run_again(const char *part, void (*prepare)(void)) {
    int status;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        prepare();
        execl("/proc/self/exe", "test_spans", part, (char *)NULL);
        _exit(127);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

static void limit_addresses(void) {
    struct rlimit limit = {(size_t)256 << 20, (size_t)256 << 20};
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
}

/* Spans turn into runs that begin and end within SuperSlabs. */
static void contents_survive_where_addresses_are_scarce(void) { run_again("scarce", limit_addresses); }

static void map_each_slab(void) { setenv("HAKMEM_TINY_USE_SUPERSLAB", "0", 1); }
static void pages_stay_small_in_slabs_mapped_one_by_one(void) { run_again("slab", map_each_slab); }
#endif

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "scarce") == 0) {
        contents_survive();
        CHECK(!hakmem_check || hakmem_check() == 1);
        return 0;
    }
#ifndef HAK_PREFIXED
    if (argc == 2 && strcmp(argv[1], "slab") == 0) {
        char *p = malloc(60000);
        CHECK(p && pages_stay_small(p));
        return 0;
    }
    RUN(contents_survive_where_addresses_are_scarce);
    if (!hakmem_check || !getenv("HAKMEM_SS_MEM_LEAN")) SKIP(pages_stay_small_in_what_is_mapped_anew, "Lean promises it");
    else if (!kernel_has_huge_pages()) SKIP(pages_stay_small_in_what_is_mapped_anew, "needs a kernel with huge pages");
    else {
        RUN(pages_stay_small_in_what_is_mapped_anew);
        RUN(pages_stay_small_in_slabs_mapped_one_by_one);
    }
    if (!hakmem_check) SKIP(no_more_is_resident_than_was_held, "the system's allocator does not promise it");
    else if (getenv("HAKMEM_SS_MEM_LEAN")) SKIP(no_more_is_resident_than_was_held, "Lean gives spans back instead");
    else if (!pages_can_move()) SKIP(no_more_is_resident_than_was_held, "needs Linux 5.7");
    else RUN(no_more_is_resident_than_was_held);
#endif
    if (!hakmem_check) SKIP(the_fullest_superslab_is_filled_first, "the system's allocator has none");
    else RUN(the_fullest_superslab_is_filled_first);
    RUN(contents_survive);
    return 0;
}
