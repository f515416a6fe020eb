/* census: where every byte of the allocator is, counted room by room, in-process; and the text that tells others how to read the
 * live page. Reads every room, changes none. Figures in bytes unless named otherwise.
 *
 *   out     blocks of a class that are not in their slab: live or in a cache; live = out - cached
 *   map     one entry a SuperSlab that is in use or kept: index, ss_words, unit_word of each unit
 */
#ifndef HAK_CENSUS_H
#define HAK_CENSUS_H

#include "base.h"

/* In blocks that are not in their slab (live or in a cache), page runs and spans. */
size_t census_live_bytes(void);
bool census_check(void); /* holds every slab against the invariants of slab.h; says which breaks one */

/* {"classes":[..],"metadata":{..},..,"map":[[index,word,..],..]}; returns the bytes needed. */
size_t census_json(char *buf, size_t size);

bool census_show(const char *folder); /* starts the live page; false: it cannot be */
void census_forked(void);             /* in the child, all locks held */

#endif
