/* live: counters and residency of this process in a file that others map and read while it runs (gate STATS_LIVE).
 *
 *   page     text (JSON: what stands where), counters (stats_share), metadata ranges (os_meta_move), records
 *   record   one a SuperSlab: LIVE_HEAD words about it (ss_words), then one word a unit (unit_word)
 *
 * Writers store whole words where the allocator changes what they tell, so that a reader needs no lock and is never behind; while
 * the gate is off each such place costs one compare, away from the fast path. The file is named by process: a child of fork makes
 * its own, exit removes it, and what a process that died left behind is known by its start time.
 */
#ifndef HAK_LIVE_H
#define HAK_LIVE_H

#include "base.h"
#include "os.h"
#include "stats.h"

#define LIVE_TEXT 12288
#define LIVE_SLOTS 128 /* threads that count in blocks of their own */
#define LIVE_HEAD 2

typedef struct {
    char text[LIVE_TEXT];
    uint64_t known, shown; /* units: with a record; of them, in the words below */
    uint64_t moving;       /* odd while counts move between blocks */
    os_meta_table meta;
    stats_block counts[LIVE_SLOTS];
    uint64_t words[];
} live_page;

extern HIDDEN live_page *hak_live;
extern HIDDEN size_t hak_live_units; /* shown; 0: the gate is off */
extern HIDDEN unsigned hak_live_shift; /* units in a SuperSlab, as a power of two */

/* Make a file in `folder`; false, and one line on stderr: it cannot be. */
bool live_start(const char *folder, unsigned ss_units);
void live_publish(void); /* it is complete: it gets its name, hakmem.<pid> */
void live_show(size_t units);  /* while there is a page: so many units have a record now: makes room for their words */
bool live_forked(void);        /* in the child: a file of its own, to be published, or none (false: nothing is shown any more) */
void live_end(void);           /* removes the file */
uint64_t live_start_ticks(void); /* when this process began, in clock ticks since boot */

static inline void live_unit(size_t u, uint64_t word) {
#if HAK_STATS_ON
    if (unlikely(u < hak_live_units)) poke(&hak_live->words[u + ((u >> hak_live_shift) + 1) * LIVE_HEAD], word);
#else
    (void)u, (void)word;
#endif
}
static inline void live_superslab(size_t i, const uint64_t word[LIVE_HEAD]) {
#if HAK_STATS_ON
    if (unlikely(i << hak_live_shift < hak_live_units))
        for (unsigned k = 0; k < LIVE_HEAD; k++) poke(&hak_live->words[i * ((1u << hak_live_shift) + LIVE_HEAD) + k], word[k]);
#else
    (void)i, (void)word;
#endif
}

#endif
