/* api: the malloc family, start and end of the process, fork. Call tree of the fast path:
 *
 *   malloc   FAST  size -> class (byte table), pop the class's hot list
 *            SLOW  tcache_malloc_slow -> slab_refill -> ss_units_alloc -> os;  above 32 KiB large_alloc
 *   free     FAST  unit -> class (byte map), push the class's hot list
 *            SLOW  hak_free_slow -> depot or slab_flush;  large_free;  or the end of the program
 */
#include "background.h"
#include "census.h"
#include "depot.h"
#include "diag.h"
#include "dump.h"
#include "gates.h"
#include "heap.h"
#include "large.h"
#include "live.h"
#include "misuse.h"
#include "stats.h"
#include "tcache.h"

#include "../include/hakmem.h"

#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#ifdef HAK_PREFIXED
#define API(name) hak_##name
#else
#define API(name) name
#endif

/* ---- start, end, fork ---- */

static bool ready;
static hak_lock start_lock = HAK_LOCK_INIT;

static NOINLINE bool start(void) {
    int saved = errno, cancel = cancel_off();
    lock(&start_lock);
    if (!ready) {
        static bool prepared;
        if (!prepared) {
            gates_load();
            depot_init();
            if (gate_text(G_STATS_JSON)) dump_start();
            prepared = true;
        }
        /* What was refused for lack of memory is asked for again at the next call. */
        if (os_init()) {
            lean_init();
            slab_init();
            if (ss_init()) {
                tcache_init();
                __atomic_store_n(&ready, true, __ATOMIC_RELEASE);
                if (gate_text(G_STATS_LIVE)) (void)census_show(gate_text(G_STATS_LIVE));
            }
        }
    }
    unlock(&start_lock);
    cancel_back(cancel);
    errno = saved;
    return ready;
}
static inline bool started(void) { return likely(__atomic_load_n(&ready, __ATOMIC_ACQUIRE)) || start(); }

static _Thread_local bool forking; /* a thread that ends the program holds all as well, and its handler of SIGABRT may fork */

static void before_fork(void) {
    if (hak_holds_all) return;
    lock(&start_lock);
    heap_lock_all();
    depot_lock_all();
    slab_lock_all();
    ss_lock_all();
    lean_lock();
    stats_lock();
    os_lock();
    forking = hak_holds_all = true;
}

static void after_fork(void) {
    if (!forking) return;
    forking = hak_holds_all = false;
    os_unlock();
    stats_unlock();
    lean_unlock();
    ss_unlock_all();
    slab_unlock_all();
    depot_unlock_all();
    heap_unlock_all();
    unlock(&start_lock);
}

static void after_fork_in_child(void) {
    background_forked();
    census_forked();
    after_fork();
}

/* Not later, when a second thread is there: it could take locks while handlers of other libraries run, before a fork that ours came too late for. */
__attribute__((constructor)) static void at_start(void) {
    bool can = started();
    (void)pthread_atfork(before_fork, after_fork, after_fork_in_child);
    if (can) background_start();
}

__attribute__((destructor)) static void at_exit(void) {
    if (!ready) return;
    background_stop();
    dump_json_at_exit();
    if (HAK_CHECKS) { /* misuse that no later free has brought to light */
        tcache_drain();
        slab_drain_depot();
    }
    dump_at_exit();
    live_end();
}

/* ---- allocation ---- */

static COLD void *out_of_memory(void) {
    errno = ENOMEM;
    return NULL;
}

/* All that the calling thread and the depot hold goes back to the slabs, and what is empty or free to the kernel; the bytes. */
static COLD size_t give_all_back(void) {
    size_t start = lean_resident(), now;
    heap *h = hak_tls.heap;
    tcache_drain();
    if (h) {
        heap_enter(h);
        slab_abandon(&h->slabs);
        heap_leave(h);
    }
    slab_trim();
    now = lean_resident();
    return start > now ? start - now : 0;
}

static void *malloc_slow(size_t cls, bool exact) {
    void *p = started() ? tcache_malloc_slow(cls, exact) : NULL;
    if (unlikely(!p) && ready) {
        (void)give_all_back(); /* the last resort: empty slabs serve any size */
        p = tcache_malloc_slow(cls, exact);
    }
    return p ? p : out_of_memory();
}

NOINLINE void *hak_malloc_slow(size_t cls) { return malloc_slow(cls, false); }

static NOINLINE void *alloc_large(size_t n, size_t align, bool *zeroed) {
    void *p = started() ? large_alloc(n, align, zeroed) : NULL;
    if (unlikely(!p) && ready && n >> UNIT_SHIFT < hak_arena_units) {
        (void)give_all_back();
        p = large_alloc(n, align, zeroed);
    }
    return p ? p : out_of_memory();
}

NOINLINE void *hak_malloc_large(size_t size) {
    bool zeroed;
    return alloc_large(size, 1, &zeroed);
}

#if HAK_OBSERVE
void hak_count_fast(int is_free) { stat_add(is_free ? ST_free_fast : ST_malloc_fast, 1); }
#endif

/* Class of a block that must be live; 0: a page run or span. */
static unsigned class_of_live(void *p, const char *what) {
    if (large_owns(p)) return 0;
    misuse_check_live(p, what);
    unsigned c = unit_record(unit_of(p))->cls;
    if (HAK_CHECKS && block_looks_free(p) && tcache_holds(p, c)) hak_fatal(what, p, hak_class[c].size);
    return c;
}

/* A block starts at a multiple of its size in a slab aligned to 64 KiB; one of another class may have come. */
static void *alloc_class_aligned(unsigned c, size_t align) {
    void *p = hak_alloc_class(c);
    if (likely(!((uintptr_t)p & (align - 1)))) return p;
    hakmem_free(p);
    return malloc_slow(c, true);
}

static void *alloc_aligned(size_t align, size_t n) {
    bool zeroed;
    if (n <= SMALL_MAX && align <= SMALL_MAX)
        for (unsigned c = hak_size_class[((n > align ? n : align) + 15) >> 4]; c <= CLASSES; c++)
            if (hak_class[c].size % align == 0) return alloc_class_aligned(c, align);
    if (n > PTRDIFF_MAX) return out_of_memory();
    return alloc_large(n < SMALL_MAX ? SMALL_MAX + 1 : n, align, &zeroed);
}

EXPORT HOT void *API(malloc)(size_t n) { return hakmem_malloc(n); }

EXPORT HOT void API(free)(void *p) { hakmem_free(p); }

EXPORT void *API(calloc)(size_t count, size_t size) {
    size_t n;
    bool zeroed = false;
    if (unlikely(__builtin_mul_overflow(count, size, &n))) return out_of_memory();
    void *p = n > SMALL_MAX ? alloc_large(n, 1, &zeroed) : hak_alloc_class(hak_size_class[(n + 15) >> 4]);
    if (p && !zeroed) memset(p, 0, n);
    return p;
}

EXPORT void *API(realloc)(void *p, size_t n) {
    if (!p) return hakmem_malloc(n);
    if (n == 0) {
        hakmem_free(p);
        return NULL;
    }
    unsigned c = class_of_live(p, "realloc of a freed block");
    size_t usable = c ? hak_class[c].size : large_usable(p);
    if (c) {
        if (n <= usable && (n > usable / 2 || usable <= 32)) {
            STAT(realloc_in_place);
            return p;
        }
    } else if (n > SMALL_MAX) {
        void *q = large_resize(p, n);
        if (q) {
            STAT(realloc_in_place);
            return q;
        }
    }
    int saved = errno;
    void *q = hakmem_malloc(n);
    if (!q) {
        if (n > usable) return NULL;
        errno = saved; /* it fits where it is: a block can always shrink */
        return p;
    }
    memcpy(q, p, n < usable ? n : usable);
    hakmem_free(p);
    return q;
}

EXPORT void *API(reallocarray)(void *p, size_t count, size_t size) {
    size_t n;
    return __builtin_mul_overflow(count, size, &n) ? out_of_memory() : API(realloc)(p, n);
}

EXPORT void API(free_sized)(void *p, size_t size);
EXPORT void API(free_sized)(void *p, size_t size) {
    (void)size;
    hakmem_free(p);
}

EXPORT void API(free_aligned_sized)(void *p, size_t align, size_t size);
EXPORT void API(free_aligned_sized)(void *p, size_t align, size_t size) {
    (void)align, (void)size;
    hakmem_free(p);
}

EXPORT void *API(aligned_alloc)(size_t align, size_t n) {
    if (!is_pow2(align)) {
        errno = EINVAL;
        return NULL;
    }
    return alloc_aligned(align, n);
}

EXPORT int API(posix_memalign)(void **out, size_t align, size_t n) {
    if (!is_pow2(align) || align % sizeof(void *)) return EINVAL;
    int saved = errno;
    void *p = alloc_aligned(align, n);
    errno = saved; /* the result says it, errno stays */
    if (!p) return ENOMEM;
    *out = p;
    return 0;
}

EXPORT void *API(memalign)(size_t align, size_t n) {
    size_t up = 16;
    while (up < align && up << 1) up <<= 1; /* as glibc does: the next power of two */
    return alloc_aligned(up, n);
}

EXPORT void *API(valloc)(size_t n) { return started() ? alloc_aligned((size_t)1 << hak_page_shift, n) : out_of_memory(); }

EXPORT void *API(pvalloc)(size_t n) {
    if (!started() || n > PTRDIFF_MAX) return out_of_memory();
    size_t page = (size_t)1 << hak_page_shift;
    return alloc_aligned(page, round_up(n ? n : 1, page));
}

EXPORT size_t API(malloc_usable_size)(void *p) {
    if (!p) return 0;
    unsigned c = class_of_live(p, "size of a freed block");
    return c ? hak_class[c].size : large_usable(p);
}

/* ---- what the program may ask ---- */

EXPORT size_t hakmem_purge(void) { return started() ? give_all_back() : 0; }

EXPORT int API(malloc_trim)(size_t pad) {
    (void)pad;
    return hakmem_purge() > 0;
}

EXPORT const char *hakmem_version(void) { return HAK_VERSION; }

EXPORT size_t hakmem_stats_json(char *buf, size_t size) { return started() ? dump_json(buf, size) : 0; }

EXPORT size_t hakmem_counters(uint64_t *counts, size_t size) { return HAK_STATS_ON && started() ? stats_counts(counts, size) : 0; }

EXPORT size_t hakmem_residency_json(char *buf, size_t size) { return started() ? census_json(buf, size) : 0; }

EXPORT int hakmem_check(void) { return started() && census_check(); }

EXPORT void hakmem_stats_get(hakmem_stats *out) {
    size_t units;
    *out = (hakmem_stats){0};
    if (!started()) return;
    stats_block t;
    stats_total(&t);
    out->resident = lean_resident();
    out->live = census_live_bytes();
    out->metadata = lean_metadata() + heap_bytes();
    ss_count(&out->superslabs, &units);
    out->target = lean_releases() ? (size_t)ss_mem_lean_target_mb() * MIB : 0;
    out->system_calls = t.n[ST_sys_mmap] + t.n[ST_sys_munmap] + t.n[ST_sys_mprotect] + t.n[ST_sys_madvise] + t.n[ST_sys_mremap];
}

EXPORT struct mallinfo2 API(mallinfo2)(void) {
    hakmem_stats s;
    hakmem_stats_get(&s);
    return (struct mallinfo2){.arena = s.resident, .uordblks = s.live, .fordblks = s.resident > s.live ? s.resident - s.live : 0};
}

EXPORT int API(malloc_info)(int options, FILE *to) {
    hakmem_stats s;
    if (options != 0) return EINVAL;
    hakmem_stats_get(&s);
    fprintf(to,
            "<malloc version=\"hakmem-" HAK_VERSION
            "\"><total type=\"live\" size=\"%zu\"/><system type=\"current\" size=\"%zu\"/></malloc>\n",
            s.live, s.resident);
    return 0;
}

EXPORT int API(mallopt)(int what, int value) {
    (void)what, (void)value; /* accepted: gates are how hakmem is tuned */
    return 1;
}

#ifndef HAK_PREFIXED
/* ---- glibc's further names: who calls them, or wraps them, is on the same heap ---- */

static int as_int(size_t n) { return n > INT_MAX ? INT_MAX : (int)n; }

EXPORT struct mallinfo mallinfo(void) {
    struct mallinfo2 m = mallinfo2();
    return (struct mallinfo){.arena = as_int(m.arena), .uordblks = as_int(m.uordblks), .fordblks = as_int(m.fordblks)};
}

EXPORT void malloc_stats(void) {
    hakmem_stats s;
    hakmem_stats_get(&s);
    hak_msg("%zu bytes live, %zu resident, %zu of metadata, %zu SuperSlabs", s.live, s.resident, s.metadata, s.superslabs);
}

#if __has_attribute(copy) /* gcc */
#define ALIAS(of) __attribute__((alias(#of), copy(of)))
#else
#define ALIAS(of) __attribute__((alias(#of)))
#endif
#define ALSO(name, of)          \
    EXPORT __typeof__(of) name; \
    EXPORT __typeof__(of) name ALIAS(of);
ALSO(__libc_malloc, malloc)
ALSO(__libc_calloc, calloc)
ALSO(__libc_realloc, realloc)
ALSO(__libc_free, free)
ALSO(__libc_memalign, memalign)
ALSO(__libc_valloc, valloc)
ALSO(__libc_pvalloc, pvalloc)
ALSO(__posix_memalign, posix_memalign)
ALSO(cfree, free)
#endif
