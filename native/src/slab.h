/* slab: 64 KiB slabs of equal blocks; what is free in them; what moves between them and thread caches.
 *
 *   block   while free in a thread cache: { next, mac }, mac = secret ^ next, so a second free and a damaged list show. From its free
 *           until it is put on a list mac = secret, the mark. What a program copies about can look the same: a look-alike is
 *           a second free only if slab_is_free() agrees.
 *   chain   blocks linked by `next`, ended by LIST_END.
 *   depot   per class, up to DEPOT_CHAINS full chains that threads hand each other in O(1).
 *
 * Invariants, under the lock of the class (u: a unit in state UNIT_SLAB):
 *   blocks in the slab = nfree + (count - carved); all others are live or in some thread cache
 *   listed  <=> owner == NULL and some block is in the slab;  bit i set => i < carved
 *   hak_unit_class[u] = class, or 0 while pages of carved blocks are given back or threads may not keep its blocks (then every free of it is
 *   checked slowly)
 */
#ifndef HAK_SLAB_H
#define HAK_SLAB_H

#include "base.h"
#include "classes.h"
#include "superslab.h"

typedef hak_block block;

typedef struct {
    block *head;
    unsigned count;
} chain;

#if HAK_CHECKS
extern HIDDEN block hak_sentinel; /* ends every list; never looks free */
#define LIST_END (&hak_sentinel)
#else
#define LIST_END NULL
#endif

/* A block on a list is marked for a moment when another thread may cut the list there (heap.h); it does not look free then. */
static inline uintptr_t slab_mark_of(const block *next) { return ~(hak_secret ^ (uintptr_t)next); }
/* Looks free, once nobody considers a cut. */
bool slab_on_list(const block *b);

/* What a thread holds of this room; zeroed at first. */
#define WARM_MAX 8
typedef struct slab_heap {
    unit *current[CLASSES + 1];
    size_t warm[WARM_MAX]; /* empty units at hand */
    unsigned warm_count;
} slab_heap;

/* A route: everything an allocation's slow way needs to know, decided once (ALLOC_PASSDOWN_SSOT) or by each layer. */
typedef struct {
    unsigned batch;
    bool lean;
} slab_route;
slab_route slab_decide(unsigned cls);

void slab_init(void);
unsigned slab_cap(unsigned cls, policy_pressure pressure); /* blocks a hot list of this class may hold */

bool slab_cached(unsigned cls); /* whether threads may keep blocks of this class now */

/* Fetch up to a batch of blocks; count 0: out of memory. `decided` NULL: each layer decides for itself. */
chain slab_refill(slab_heap *h, unsigned cls, const slab_route *decided);
/* Give a chain back to its slabs; ends the program on a block that is free already, or none. Checks every block. */
void slab_flush(slab_heap *h, unsigned cls, chain c);
bool slab_depot_put(unsigned cls, chain c); /* checks every block, like slab_flush; false: full */
bool slab_depot_get(unsigned cls, chain *c);
void slab_depot_drain(void);
void slab_abandon(slab_heap *h); /* thread exit: current and warm slabs are everybody's */

/* The slow look at one pointer: its block's index if it is a block that is not in its slab, else the program ends with `what`. */
void slab_check_live(const void *p, const char *what);
/* Of a block that looks free: whether it is, as far as its slab, its link and the depot tell. Lists of threads are not searched. */
bool slab_is_free(const block *b, unsigned cls);
/* A pointer into hakmem's arena that is not a live block: says what it is and ends the program. */
_Noreturn void slab_bad_free(const void *p);
_Noreturn void slab_bad_link(const block *b, unsigned cls); /* on a list, yet not linked; one that bears the mark was freed again */

/* Lean: give back every free page. */
void slab_purge(void);
void slab_purge_if_over(void);
void slab_purge_at_rest(void); /* the same, but also for little: nobody allocates meanwhile */
/* Everything that can go, now: depots, free pages, empty SuperSlabs. Bytes given back. */
size_t slab_trim(void);

void slab_lock_all(void), slab_unlock_all(void);
/* Where another process finds chains at rest in this one's memory: of class c all addresses are further by c * step. */
typedef struct {
    const void *counts, *chains; /* how many chains there are; blocks in the first of DEPOT_CHAINS */
    size_t step, chain_step;
} slab_layout;
slab_layout slab_where(void);
size_t slab_depot_blocks(unsigned cls); /* in chains at rest between threads */
size_t slab_live_bytes(void); /* in blocks that are not in their slab */
bool slab_check(void); /* walks every slab and holds it against the invariants above */

#endif
