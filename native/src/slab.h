/* slab: 64 KiB slabs of equal blocks; what is free in them; what moves between them and thread caches.
 *
 * Invariants, under the lock of the class, which census_check() holds every slab against (u: a unit in state UNIT_SLAB):
 *   blocks in the slab = nfree + (count - carved); all others are live or in some thread cache
 *   listed  <=> owner == NULL and some block is in the slab;  bit i set => i < carved, and the block bears its stamp if the page it begins on is resident
 *   hak_unit_class[u] = class, or 0 while threads may not keep its blocks (then every free of it is checked slowly)
 */
#ifndef HAK_SLAB_H
#define HAK_SLAB_H

#include "base.h"
#include "classes.h"
#include "depot.h"
#include "superslab.h"

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

void slab_init(void); /* after gates_load */
extern HIDDEN uint16_t slab_caps[PRESSURE_HIGH + 1][CLASSES + 1];
/* Blocks a hot list of this class may hold. */
static inline unsigned slab_cap(unsigned cls, policy_pressure pressure) { return slab_caps[pressure][cls]; }

bool slab_cached(unsigned cls); /* whether threads may keep blocks of this class now */

/* Fetch up to a batch of blocks, linked with `key`; count 0: out of memory. `decided` NULL: each layer decides for itself. */
chain slab_refill(slab_heap *h, unsigned cls, const slab_route *decided, uintptr_t key);
/* The same above the target, from resident pages only; count 0: no block is free there. */
chain slab_refill_sparingly(slab_heap *h, unsigned cls, uintptr_t key);
/* Give a chain back to its slabs; ends the program on a block that is free already, or none. Checks every block. */
void slab_flush(slab_heap *h, unsigned cls, chain c);
void slab_drain_depot(void);     /* what threads have left for each other goes back likewise */
void slab_abandon(slab_heap *h); /* thread exit: current and warm slabs are everybody's */

/* Lean: give free pages back if it is time to; at rest also for little, since no activity follows. */
void slab_purge_if_due(bool at_rest);
/* Everything that can go, now: depots, free pages, empty SuperSlabs. */
void slab_trim(void);

void slab_lock_all(void), slab_unlock_all(void);

#endif
