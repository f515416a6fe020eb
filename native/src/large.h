/* large: page runs of 64 KiB units inside a SuperSlab, and spans of whole SuperSlabs. Beside slab, above superslab.
 *
 *   run    1 .. ss_units / 2 units, some more where addresses are scarce (ss_shares_superslabs); its first unit is in state UNIT_RUN, the
 *          others UNIT_RUN_TAIL
 *   span   more: whole SuperSlabs, head SS_SPAN; its first unit is in state UNIT_RUN
 *   A block starts at the first byte of its first unit. hak_unit_class is 0 for all of them.
 */
#ifndef HAK_LARGE_H
#define HAK_LARGE_H

#include "base.h"

/* NULL: out of memory. `align`: a power of two. `zeroed`: whether the block reads as zeros. */
void *large_alloc(size_t size, size_t align, bool *zeroed);
bool large_free(void *p); /* false: p is not the start of a live run or span, and nothing has changed */
bool large_owns(const void *p); /* p is the start of a live run or span */
size_t large_usable(const void *p);
/* In place, or by moving page tables; NULL: neither is possible and nothing has changed. */
void *large_resize(void *p, size_t size);

#endif
