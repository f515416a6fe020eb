/* depot: chains of free blocks, and where threads leave them for each other.
 *
 *   block   while free in a thread cache: { next, mac }, mac = key ^ next with the key of its list, so a damaged list shows, and a block that was
 *           freed again since and is on another one. In its slab mac = the stamp, which a page that was given back gets anew when it is taken again. What a program
 *           copies about can look the same: a look-alike is a second free only if misuse_is_free() agrees.
 *   key     secret ^ (heap's number << 32 | number of its list << 16), which no other list has; the low bits are the secret's, so a link whose
 *           low byte was overwritten is no other list's either
 *   chain   blocks linked by `next`, ended by LIST_END, and their key
 *   depot   per class up to DEPOT_CHAINS full chains, handed over in O(1): a cache like the lists they were, not looked at block by block
 *           before a flush takes them
 */
#ifndef HAK_DEPOT_H
#define HAK_DEPOT_H

#include "base.h"

typedef hak_block block;

typedef struct {
    block *head;
    uintptr_t key; /* without checks nobody asks for it */
    unsigned count;
} chain;

#if HAK_CHECKS
extern HIDDEN block hak_sentinel; /* ends every list; never looks free */
#define LIST_END (&hak_sentinel)
#else
#define LIST_END NULL
#endif

extern HIDDEN uintptr_t hak_secret;
extern HIDDEN size_t hak_last_heap; /* no key names a later one */
void depot_init(void);              /* draws the secret */

static inline void block_link(block *b, block *next, uintptr_t key) {
    b->next = next;
#if HAK_CHECKS
    b->mac = key ^ (uintptr_t)next;
#else
    (void)key;
#endif
}
static inline uintptr_t block_stamp(void) { return ~hak_secret; }
static inline void block_into_slab(block *b) {
#if HAK_CHECKS
    b->mac = block_stamp();
#else
    (void)b;
#endif
}
static inline bool block_links(const block *b, uintptr_t key) { return (b->mac ^ (uintptr_t)b->next) == key; }
static inline bool block_looks_free(const block *b) { /* on whatever list, or in its slab */
    uintptr_t list = (uintptr_t)b->next ^ b->mac ^ hak_secret;
    return (!(list & UINT16_MAX) && list >> 32 <= peek(&hak_last_heap)) || b->mac == block_stamp();
}

bool depot_put(unsigned cls, chain c); /* false: full, or Lean keeps no chains at rest */
bool depot_get(unsigned cls, chain *c);
bool chain_holds(const chain *c, const block *b);  /* as far as it is linked */
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
