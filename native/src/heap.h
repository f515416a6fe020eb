/* heap: what a thread holds beside its hot lists; all threads' heaps in one list; what idle threads hold is taken back.
 *
 * With Lean, at least half a second apart (SS_LEAN_CACHE_IDLE_MS) some thread on a slow way looks at the lists of all others. A list that looks as it did
 * half a second ago goes back to its slabs, except for two blocks, though its owner may wake up at any instant, and
 * its malloc and free know nothing of it:
 *
 *   1. The second block of the list is marked: it no longer looks free, so malloc, which checks that, takes the slow way there.
 *   2. Every running thread passes a memory barrier (membarrier). What the owner loads from now on is the mark.
 *   3. If the list still begins with its first block, the owner is at most about to take that one: the rest, from the third block on, is out
 *      of its reach. The second one becomes the end of the list. Otherwise the mark is undone; whoever met it waited.
 *
 * The full chain behind a hot list is only touched under the heap's lock. FAST has no look at blocks, so there only these chains go back.
 */
#ifndef HAK_HEAP_H
#define HAK_HEAP_H

#include "base.h"
#include "slab.h"
#include "stats.h"

typedef struct heap {
    stats_block stats; /* first: what comes before `made` is cleared when a heap is used again */
    slab_heap slabs;
    chain spare[CLASSES + 1];    /* the full chain behind each hot list */
    int16_t cap[CLASSES + 1];    /* blocks a hot list may hold, less `taken` */
    uint16_t taken[CLASSES + 1]; /* blocks that others took from the hot list since the owner last looked */
    uint32_t seen[CLASSES + 1];  /* how the hot list looked to others last time, and where the full chain began */
    block *spare_seen[CLASSES + 1];
    bool missed[CLASSES + 1]; /* since it last ran full */
    policy_pressure pressure; /* under which cap was decided */
    hak_lock lock;            /* held on the owner's slow ways, with Lean */
    struct hak_tls *tls;      /* of the thread that has it; NULL: nobody */
    struct heap *next, *made; /* the next unused one; the one made before */
    uint16_t number, lists;   /* whose key this is; how many lists it has begun */
} heap;

extern HIDDEN heap *hak_heaps; /* the one made last */

heap *heap_new(struct hak_tls *tls); /* cleared, and tls->heap; NULL: no memory */
void heap_end(heap *h);              /* its lists are empty */
size_t heap_count(void);             /* of all records: as many as there were threads at once */
static inline size_t heap_bytes(void) { return heap_count() * sizeof(heap); }

/* For a list that begins: no other that is in use has it (65,536 heaps and lists of each later one might). */
static inline uintptr_t heap_new_key(heap *h) {
    return HAK_CHECKS ? hak_secret ^ ((uintptr_t)h->number << 32 | (uintptr_t)++h->lists << 16) : 0;
}

static inline void heap_enter(heap *h) {
    if (lean_releases()) lock(&h->lock);
}
static inline void heap_leave(heap *h) {
    if (lean_releases()) unlock(&h->lock);
}

/* Take back what other threads have not used for long, if it is time to look; the caller holds no lock. */
void heap_look_for_idle(const heap *self);
static inline void heap_take_idle(const heap *self) {
    if (lean_releases()) heap_look_for_idle(self);
}

void heap_lock_all(void), heap_unlock_all(void); /* around fork */

#endif
