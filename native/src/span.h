/* span: blocks of many SuperSlabs: where they stand, and how they grow, move and go.
 *
 *   span   adjacent SuperSlabs that serve one block, from the first byte of the head on: SS_SPAN, then SS_TAIL; all their units are in use
 *   rest   what of the last SuperSlab is beyond `bytes`: nobody else's; its pages count as resident once they were used
 *
 * A span stands where addresses are free; the pages of empty SuperSlabs elsewhere (ss_kept) move there. ss_lock is held throughout.
 */
#ifndef HAK_SPAN_H
#define HAK_SPAN_H

#include "base.h"
#include "superslab.h"

/* n adjacent SuperSlabs aligned to `align` bytes; the first unit, or SIZE_MAX. `bytes` (<= n SuperSlabs) will be used. */
size_t span_alloc(size_t n, size_t align, size_t bytes, bool *zeroed);
void span_free(SuperSlab *head);
/* In place, or by moving page tables; the new head, or NULL and nothing has changed. */
SuperSlab *span_resize(SuperSlab *head, size_t n, size_t bytes);

#endif
