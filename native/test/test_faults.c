/* The kernel refuses: every call of the allocator once, and every one from then on. The program gets NULL and ENOMEM, or works;
 * what it holds stays whole and the heap sound. Advice that is refused falls back to giving the mapping back. */
#include "counters.h"
#include "faults.h"
#include "os.h"

#include <pthread.h>
#include <sys/resource.h>

typedef struct {
    unsigned char *block;
    size_t size;
    uint32_t key;
} held;

enum { HELD = 64, MANY = 300 };
static held all[HELD];

static bool is_whole(const held *h) {
    size_t end = h->size < 9000 ? 0 : h->size - 4096; /* of large ones both ends */
    return is_filled(h->block, end ? 4096 : h->size, h->key) && (!end || is_filled(h->block + end, 4096, h->key + 1));
}

static void settle(held *h, void *block, size_t size) {
    static uint32_t next_key = 1;
    size_t end = size < 9000 ? 0 : size - 4096;
    *h = (held){block, size, __atomic_fetch_add(&next_key, 2, __ATOMIC_RELAXED)};
    fill(block, end ? 4096 : size, h->key);
    if (end) fill(h->block + end, 4096, h->key + 1);
}

static void take(held *h, size_t size, unsigned kind) {
    void *p = NULL;
    errno = 0;
    if (kind % 4 == 1) {
        p = calloc(1, size);
        CHECK(!p || is_zero(p, size));
    } else if (kind % 4 == 2) {
        errno = posix_memalign(&p, 256, size);
    } else {
        p = malloc(size);
    }
    CHECK(p ? is_aligned(p, 16) : errno == ENOMEM);
    if (p) settle(h, p, size);
}

static void resize(held *h, size_t size) {
    if (!h->block) return;
    errno = 0;
    void *p = realloc(h->block, size);
    if (!p) {
        CHECK(errno == ENOMEM && is_whole(h));
        return;
    }
    h->block = p;
    CHECK(is_filled(p, h->size < 9000 ? (h->size < size ? h->size : size) : 4096, h->key));
    settle(h, p, size);
}

static void drop(held *h) {
    if (!h->block) return;
    CHECK(is_whole(h));
    free(h->block);
    h->block = NULL;
}

static void use_everything(held *mine) {
    static const size_t sizes[] = {1, 40, 100, 1000, 5000, 20000, 32768, 40000, 200000, 900000, 1200000, 3000000, 33 << 20};
    unsigned n = 0;
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (unsigned k = 0; k < (sizes[i] < 1 << 20 ? 4 : 2); k++) take(&mine[n++], sizes[i], sizes[i] < 4 << 20 ? k : 0);
    CHECK(n <= HELD);
    resize(&mine[n - 4], 9 << 20); /* 3 MB with another behind it: moves */
    resize(&mine[n - 4], 2 << 20);
    for (unsigned i = 0; i < n - 5; i += 3) resize(&mine[i], mine[i].size * 2 + 1);
    for (unsigned i = 0; i < n; i++) CHECK(!mine[i].block || is_whole(&mine[i]));
    for (unsigned i = 0; i < n; i += 2) drop(&mine[i]);
    malloc_trim(0);
    for (unsigned i = 0; i < n; i++) drop(&mine[i]);
}

/* More small blocks than one SuperSlab holds. */
static void use_many(void) {
    static held many[MANY];
    for (unsigned i = 0; i < MANY; i++) take(&many[i], 10000, 0);
    for (unsigned i = 0; i < MANY; i++)
        if (i % 7) drop(&many[i]);
    malloc_trim(0);
    for (unsigned i = 0; i < MANY; i++) drop(&many[i]);
}

static void *use_in_a_thread(void *theirs) {
    static held mine[HELD];
    for (held *h = theirs; h < (held *)theirs + HELD; h++) drop(h); /* blocks of another thread */
    use_everything(mine);
    return NULL;
}

static void program(void) {
    pthread_t id;
    use_everything(all);
    for (unsigned i = 0; i < HELD; i++) take(&all[i], 1 + i * 151, i);
    if (pthread_create(&id, NULL, use_in_a_thread, all) == 0) CHECK(pthread_join(id, NULL) == 0);
    use_many();
    for (unsigned i = 0; i < HELD; i++) drop(&all[i]);
    malloc_trim(0);
}

/* Whatever failed, even the start: when the kernel gives memory again everything works. */
static void program_under_faults(void) {
    program();
    fault_plan plan = plan_read();
    plan.fail_count = 0;
    plan_write(plan);
    static const size_t sizes[] = {1, 1000, 20000, 400000, 5 << 20, 40 << 20};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        take(&all[i], sizes[i], 0);
        CHECK(all[i].block);
    }
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) drop(&all[i]);
    CHECK(hakmem_check() == 1);
}

static const char *const as_they_are[] = {NULL}, *const slab_by_slab[] = {"HAKMEM_TINY_USE_SUPERSLAB=0", NULL};

static void every_call_fails(int how_often, const char *const *settings) {
    int calls = run_under((fault_plan){0}, "program", settings).calls;
    CHECK(calls > 10);
    for (int i = 1; i <= calls; i++)
        run_under((fault_plan){.fail_from = i, .fail_count = how_often, .error = ENOMEM}, "program", settings);
}
static void every_call_fails_once(void) { every_call_fails(1, as_they_are); }
static void every_call_fails_from_some_point_on(void) { every_call_fails(FOR_EVER, as_they_are); }
static void every_call_fails_once_slab_by_slab(void) { every_call_fails(1, slab_by_slab); }

/* ---- advice ---- */

static const char *const lean[] = {"HAKMEM_SS_MEM_LEAN=1",
                                   "HAKMEM_SS_MEM_LEAN_DECOMMIT=DONTNEED",
                                   "HAKMEM_SS_MEM_LEAN_TARGET_MB=1",
                                   "HAKMEM_SS_LEAN_CPU_PERMILLE=1000",
                                   "HAKMEM_SS_CACHE_GLOBAL=0",
                                   "HAKMEM_SS_EMPTY_RESERVE=0",
                                   NULL};

/* Empty SuperSlabs and spans must go back, with their mapping when advice is refused. */
static void memory_goes_back_without_advice(void) {
    long resident = resident_kb(), freed = counter("os_free");
    held span = {0}, small[MANY] = {{0}};
    take(&span, 8 << 20, 0);
    memset(span.block, 1, span.size);
    settle(&span, span.block, span.size);
    for (int i = 0; i < MANY; i++) take(&small[i], 30000, 0);
    CHECK(resident_kb() - resident > 10 << 10);
    drop(&span);
    CHECK(counter("os_free") - freed >= 1); /* at once */
    for (int i = 0; i < MANY; i++) drop(&small[i]);
    malloc_trim(0);
    CHECK(counter("os_free") - freed >= 4); /* a span of 8 MiB, and 9 MB in SuperSlabs */
    CHECK(resident_kb() - resident < 3 << 10);
    CHECK(hakmem_check() == 1);
}

static void refused(void) { memory_goes_back_without_advice(); }

static void advice_that_is_refused_falls_back_to_unmapping(void) {
    fault_plan plan = {.fail_from = 1, .fail_count = FOR_EVER, .only_madvise = 1, .error = EINVAL};
    CHECK(run_under(plan, "refused", lean).madvise_calls > 1); /* each range may be another matter */
}

static void out_of_memory(void) {
    memory_goes_back_without_advice();
    CHECK(counter("advise_failed") == 1 && counter("advise_off") >= 1);
}

static void advice_that_runs_out_of_memory_is_the_last(void) {
    fault_plan plan = {.fail_from = 1, .fail_count = 1, .only_madvise = 1, .error = ENOMEM};
    CHECK(run_under(plan, "out_of_memory", lean).madvise_calls == 1);
}

/* ---- caches that fill before anything goes back ---- */

static void caches_fill_first(void) {
    char *p = malloc(8 << 20); /* four SuperSlabs */
    CHECK(p);
    memset(p, 1, 8 << 20);
    free(p);
    CHECK(counter("ss_cached") == 3 && counter("lean_retire") == 1);
    p = calloc(1, 6 << 20);
    CHECK(p && is_zero(p, 6 << 20) && counter("ss_new") == 4);
    free(p);
    CHECK(counter("ss_cached") == 6 && counter("lean_retire") == 1);
    p = malloc(40 << 20); /* 32 MiB and more rest nowhere */
    CHECK(p && counter("ss_cached") == 6);
    free(p);
    CHECK(counter("ss_cached") == 6 && counter("os_free") == 1);
}

static void superslabs_of_large_blocks_fill_the_caches_first(void) {
    static const char *const cached[] = {"HAKMEM_SS_MEM_LEAN=1",
                                         "HAKMEM_SS_MEM_LEAN_DECOMMIT=DONTNEED",
                                         "HAKMEM_SS_MEM_LEAN_TARGET_MB=100",
                                         "HAKMEM_SS_CACHE_GLOBAL=1",
                                         "HAKMEM_SS_EMPTY_RESERVE=2",
                                         NULL};
    run_under((fault_plan){0}, "caches", cached);
}

static void busy_with_large_blocks(void) {
    for (int i = 0; i < 10; i++) {
        char *p = malloc(8 << 20);
        CHECK(p);
        memset(p, 1, 8 << 20);
        free(p);
    }
    CHECK(counter("ss_empty") >= 40 && counter("ss_cached") > 0);
}

static void an_adaptive_reserve_hears_of_large_blocks(void) {
    static const char *const adaptive[] = {"HAKMEM_SS_MEM_LEAN=1", "HAKMEM_SS_MEM_LEAN_TARGET_MB=100",
                                           "HAKMEM_SS_EMPTY_RESERVE=ADAPTIVE", NULL};
    run_under((fault_plan){0}, "busy", adaptive);
}

/* ---- the guard: hakmem's own memory and no other ---- */

static void *page_of(const void *p) { return (void *)((uintptr_t)p & ~(uintptr_t)(sysconf(_SC_PAGESIZE) - 1)); }

static void is_refused_for_good(void *p, size_t size) {
    char *own = malloc(1 << 20);
    CHECK(own && counter("advise_foreign") == 0);
    memset(own, 3, 1 << 20);
    int given = plan_read().madvise_calls;
    errno = 0;
    CHECK(ss_os_madvise_guarded(p, size, MADV_DONTNEED) == -1 && errno == 0);
    CHECK(counter("advise_foreign") == 1 && !os_advice_on());
    CHECK(ss_os_madvise_guarded(own, 1 << 16, MADV_DONTNEED) == -1 && own[0] == 3 && own[65535] == 3);
    CHECK(counter("advise_foreign") == 1 && counter("advise_off") == 1);
    free(own);
    memory_goes_back_without_advice();
    CHECK(plan_read().madvise_calls == given);
}

static void guard_libc(void) {
    char **before = environ;
    is_refused_for_good(page_of(&environ), (size_t)sysconf(_SC_PAGESIZE));
    CHECK(environ == before && getenv("HAKMEM_SS_MEM_LEAN"));
}

static void guard_straddling_end(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    is_refused_for_good(unit_address(hak_arena_units) - page, 2 * page);
}

static void guard_straddling_start(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    is_refused_for_good((char *)hak_arena_base - page, 2 * page);
}

static void guard_around(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    is_refused_for_good((char *)hak_arena_base - page, (hak_arena_units << UNIT_SHIFT) + 2 * page);
}

/* Where addresses are scarce the arena is reserved as it is used; until then a program may map something of its own in it. */
static void guard_within_the_arena(void) {
    CHECK(os_addresses_are_scarce());
    char *end = unit_address(hak_arena_units), *theirs = end - (1 << 20);
    CHECK(mmap(theirs, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == theirs);
    memset(theirs, 7, 1 << 16);
    CHECK(!os_uncommit(theirs, 1 << 16) && theirs[0] == 7);
    is_refused_for_good(theirs, 1 << 16);
    CHECK(theirs[0] == 7 && theirs[65535] == 7);
}

static void guard_own_code(void) {
    is_refused_for_good(page_of((const void *)(uintptr_t)guard_own_code), (size_t)sysconf(_SC_PAGESIZE));
}

static const struct {
    const char *name;
    void (*run)(void);
} parts[] = {{"program", program_under_faults},
             {"refused", refused},
             {"out_of_memory", out_of_memory},
             {"caches", caches_fill_first},
             {"busy", busy_with_large_blocks},
             {"guard_libc", guard_libc},
             {"guard_own_code", guard_own_code},
             {"guard_straddling_start", guard_straddling_start},
             {"guard_straddling_end", guard_straddling_end},
             {"guard_around", guard_around},
             {"guard_within_the_arena", guard_within_the_arena}};

static void foreign_memory_is_never_advised(void) {
    for (size_t i = 5; i + 1 < sizeof parts / sizeof *parts; i++) run_under((fault_plan){0}, parts[i].name, lean);
    struct rlimit before, low = {.rlim_cur = (rlim_t)1 << 30};
    CHECK(getrlimit(RLIMIT_AS, &before) == 0);
    low.rlim_max = before.rlim_max;
    CHECK(setrlimit(RLIMIT_AS, &low) == 0);
    run_under((fault_plan){0}, "guard_within_the_arena", lean);
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
}

int main(int argc, char **argv) {
    for (size_t i = 0; argc > 1 && i < sizeof parts / sizeof *parts; i++)
        if (strcmp(argv[1], parts[i].name) == 0) return parts[i].run(), 0;
    plan_open();
    RUN(every_call_fails_once);
    RUN(every_call_fails_from_some_point_on);
    if (!getenv("HAKMEM_SS_MEM_LEAN")) RUN(every_call_fails_once_slab_by_slab);
    RUN(advice_that_is_refused_falls_back_to_unmapping);
    RUN(advice_that_runs_out_of_memory_is_the_last);
    RUN(foreign_memory_is_never_advised);
    RUN(superslabs_of_large_blocks_fill_the_caches_first);
    RUN(an_adaptive_reserve_hears_of_large_blocks);
    return 0;
}
