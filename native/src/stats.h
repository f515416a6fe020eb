/* stats: counters. Every thread counts in a block of its own that it registers; totals add the blocks up. A leaf.
 *
 *   total(i) = shared(i) + sum over registered blocks b of b.n[i]
 *
 * The blocks may stand where another process sees them (stats_share): shared is then the first one, and a thread gets one of the
 * others, or counts in shared when all are taken.
 *
 * Counting is one load and one store; with HAK_STATS_ON 0 it is nothing at all.
 */
#ifndef HAK_STATS_H
#define HAK_STATS_H

#include "base.h"

/* name, what it counts */
#define HAK_COUNTERS(X)                                                                  \
    X(sys_mmap, "mmap calls")                                                            \
    X(sys_munmap, "munmap calls")                                                        \
    X(sys_mprotect, "mprotect calls")                                                    \
    X(sys_madvise, "madvise calls")                                                      \
    X(sys_mremap, "mremap calls")                                                        \
    X(os_alloc, "ranges taken from the kernel")                                          \
    X(os_free, "ranges returned with their mapping")                                     \
    X(lean_decommit, "ranges whose pages Lean gave back")                                \
    X(lean_retire, "SuperSlabs retired by Lean")                                         \
    X(pages_released, "pages given back, mapping kept")                                  \
    X(advise_foreign, "advice refused: not hakmem's memory")                             \
    X(advise_failed, "advice the kernel refused")                                        \
    X(advise_off, "advice not given any more after a refusal")                           \
    X(target_unreachable, "purges that left the process above its target")               \
    X(purge_runs, "searches for free pages")                                             \
    X(purge_ns, "nanoseconds spent giving pages back")                                   \
    X(early_under_target, "no purge: under the target")                                  \
    X(early_cpu_budget, "no purge: the CPU budget is spent")                             \
    X(refill_spare, "misses served by the full chain behind the hot list")               \
    X(refill_depot, "misses served by the depot")                                        \
    X(refill_slab, "misses served by slabs")                                             \
    X(refill_larger, "misses served by a larger class, above the target")                \
    X(refill_partial, "slabs taken over half used")                                      \
    X(refill_new, "slabs newly made")                                                    \
    X(warm_hit, "new slabs served by the warm pool")                                     \
    X(warm_put, "empty slabs kept in the warm pool")                                     \
    X(overflow, "hot lists that ran full")                                               \
    X(depot_put, "chains handed to the depot")                                           \
    X(tls_sll, "blocks that moved between a hot list and what is behind it")             \
    X(ss_local, "blocks returned to a slab of the freeing thread or of nobody")          \
    X(ss_remote, "blocks returned to a slab of another thread")                          \
    X(ss_new, "SuperSlabs taken from the kernel")                                        \
    X(ss_reuse, "SuperSlabs taken from those at hand")                                   \
    X(ss_empty, "SuperSlabs that became empty")                                          \
    X(ss_cached, "empty SuperSlabs kept resident")                                       \
    X(ss_cached_thread, "of these, set aside by the thread that emptied them")           \
    X(ss_reuse_thread, "SuperSlabs that the thread which had set them aside took again") \
    X(large_alloc, "page runs allocated")                                                \
    X(large_free, "page runs freed")                                                     \
    X(span_alloc, "spans of SuperSlabs allocated")                                       \
    X(span_free, "spans of SuperSlabs freed")                                            \
    X(realloc_in_place, "reallocations that kept their place")                           \
    X(realloc_moved_pages, "reallocations that moved page tables, not bytes")            \
    X(idle_taken, "blocks taken back from threads that left them unused")                \
    X(threads, "threads that used the allocator")                                        \
    X(malloc_fast, "allocations served by the hot list (OBSERVE)")                       \
    X(free_fast, "frees that ended on the hot list (OBSERVE)")

enum {
#define X(name, doc) ST_##name,
    HAK_COUNTERS(X)
#undef X
        ST_COUNT
};

#define OCTAVES 9 /* C0..C7 (16 B to 2 KiB) and M (above) */
enum { OCT_TAKEN, OCT_RETURNED, OCT_EMPTY, OCT_SLAB_LIVE, OCT_KINDS };

typedef struct stats_block {
    struct stats_block *next;
    uint64_t n[ST_COUNT];
    uint64_t oct[OCTAVES][OCT_KINDS];
} stats_block;

extern HIDDEN _Thread_local stats_block *hak_stats_self; /* NULL: the thread is not registered */
extern HIDDEN stats_block *hak_stats_shared; /* for such threads, and what threads that ended left; updated atomically */

static inline void stat_bump(uint64_t *own, uint64_t *shared, uint64_t by) {
    if (likely(own != NULL)) poke(own, *own + by);
    else __atomic_fetch_add(shared, by, __ATOMIC_RELAXED);
}
static inline void stat_add(int i, uint64_t by) {
#if HAK_STATS_ON
    stat_bump(hak_stats_self ? &hak_stats_self->n[i] : NULL, &hak_stats_shared->n[i], by);
#else
    (void)i, (void)by;
#endif
}
static inline void stat_octave(int octave, int kind, uint64_t by) {
#if HAK_STATS_ON
    stat_bump(hak_stats_self ? &hak_stats_self->oct[octave][kind] : NULL, &hak_stats_shared->oct[octave][kind], by);
#else
    (void)octave, (void)kind, (void)by;
#endif
}
#define STAT(name) stat_add(ST_##name, 1)
#define STAT_N(name, by) stat_add(ST_##name, (by))

void stats_register(stats_block *b); /* b zeroed; becomes the calling thread's, unless blocks are shared */
void stats_unregister(stats_block *b); /* folds what the calling thread counted into the shared totals */
/* n >= 1 zeroed blocks for good; threads registered before keep theirs. *moving is odd while counts go from one to another. */
void stats_share(stats_block *blocks, size_t n, uint64_t *moving);
void stats_total(stats_block *out);
void stats_lock(void), stats_unlock(void); /* around fork */

#define HAK_OCT_KINDS "taken", "returned", "empty_events", "slab_live_events"
extern HIDDEN const char *const hak_counter_names[ST_COUNT];
/* All counts, in the order of stats_json, as many as fit; returns how many there are. */
size_t stats_counts(uint64_t *counts, size_t size);
/* {"sys_mmap":0,...,"c0_taken":..}; returns the bytes needed. */
size_t stats_json(char *buf, size_t size);

#endif
