/* depot: chains of free blocks, and where threads leave them for each other.
 *
 *   block   while free in a thread cache: { next, mac }, mac = secret ^ next, so a second free and a damaged list show. From its free
 *           until it is put on a list mac = secret, the mark. What a program copies about can look the same: a look-alike is
 *           a second free only if misuse_is_free() agrees.
 *   chain   blocks linked by `next`, ended by LIST_END
 *   depot   per class up to DEPOT_CHAINS full chains, handed over in O(1): a cache like the lists they were, not looked at block by block
 *           before a flush takes them
 */
#ifndef HAK_DEPOT_H
#define HAK_DEPOT_H

#include "base.h"

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

void depot_init(void); /* draws the secret */
bool depot_put(unsigned cls, chain c); /* false: full, or Lean keeps no chains at rest */
bool depot_get(unsigned cls, chain *c);
size_t depot_blocks(unsigned cls);                 /* in all chains of a class */
bool depot_holds(const block *b, unsigned cls);    /* b is on one of them */
void depot_lock_all(void), depot_unlock_all(void); /* around fork */

/* Where another process finds the same figures in this one's memory: of class c all addresses are further by c * step. */
typedef struct {
    const void *counts, *chains; /* how many chains there are; blocks in the first of DEPOT_CHAINS */
    size_t step, chain_step;
} depot_layout;
depot_layout depot_where(void);

#endif
