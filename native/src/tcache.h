/* tcache: what a thread keeps at hand, so that malloc and free touch nothing shared.
 *
 *   hak_tls  in static TLS, about 1.2 KB (include/hakmem_inline.h): per class the head of the hot list, its key and the room left; starts
 *            as a static empty state, so the fast path needs no "is this thread ready?"
 *   heap     the rest of a thread's state (heap.h): the full chain behind each hot list, current slabs, counters
 *
 * Invariants (c: a class):
 *   room[c] = cap[c] - blocks on the hot list; where a free finds none the list moves behind, into the depot or back to its slabs.
 *   Class 0 (large, foreign, checked) and a thread without a heap have none, so that neither needs a branch of its own
 *   every block on a list is linked with the list's key (depot.h), which goes with the list wherever it is moved, and the next one has another.
 *   So a block that is freed while it is on a list is no longer linked there, or is met on it a second time with mac = 0, as malloc left it:
 *   a pop or a flush stops the program before anybody is given the block a second time
 *
 * With HAK_CHECKS 0 lists end with NULL, there are no keys and nothing is checked.
 */
#ifndef HAK_TCACHE_H
#define HAK_TCACHE_H

#include "base.h"
#include "slab.h"

typedef struct hak_tls tcache;

void tcache_init(void);
/* The hot list is empty, or damaged. Above Lean's target the block may be of a larger class, unless `exact`; NULL: out of memory. */
void *tcache_malloc_slow(size_t cls, bool exact);
void tcache_drain(void); /* the calling thread's caches go back to the slabs, every block checked */
bool tcache_holds(const block *b, unsigned cls); /* b is on a list of the calling thread, which holds no lock */
bool tcache_blocks(size_t blocks[CLASSES + 1]); /* adds, per class, the blocks in the caches of all threads; false: unknown */
/* Where another process finds the same figures in this one's memory: offsets in a heap and in the state of its thread. */
typedef struct {
    const void *made;
    size_t next, tls, cap, spare, spare_step, room, heap;
} tcache_layout;
tcache_layout tcache_where(void);
size_t tcache_bytes(void); /* of blocks in hot lists of the caller */

#endif
