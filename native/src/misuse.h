/* misuse: the slow look at one pointer. Says what is wrong with it and ends the program. */
#ifndef HAK_MISUSE_H
#define HAK_MISUSE_H

#include "depot.h"

/* A block on a list is marked for a moment when another thread may cut the list there (heap.h); it does not look free then. */
static inline uintptr_t misuse_mark_of(const block *next, uintptr_t key) { return ~(key ^ (uintptr_t)next); }
/* On a list with that key, once nobody considers a cut. */
bool misuse_on_list(const block *b, uintptr_t key);

/* p must be a live block of a slab, as far as its slab, its link and the depot tell; else the program ends with `what`. */
void misuse_check_live(const void *p, const char *what);
/* Of a block that looks free: whether it is. Lists of threads are not searched. */
bool misuse_is_free(const block *b, unsigned cls);

/* A pointer into hakmem's arena that is not a live block. */
_Noreturn void misuse_bad_free(const void *p);
_Noreturn void misuse_bad_link(const block *b, unsigned cls);  /* a list leads to it, yet it is not linked there */
_Noreturn void misuse_bad_words(const block *b, unsigned cls); /* its slab has it, yet it does not bear the stamp */

#endif
