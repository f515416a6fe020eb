/* unit: a dense record of each 64 KiB of the arena, and which of its pages are resident. Knows nothing of SuperSlabs.
 *
 *   unit       record in unit_table; the class of a unit also stands in hak_unit_class, the byte map that free() reads
 *   in use     a slab or part of a page run or span, since units_taken; what is not is free
 *   known      its record, class and bitmap can be read; for good
 *
 * Invariants; of units in use under their owner's lock (a slab's class lock), of free ones under the SuperSlab lock:
 *   resident bit i clear => page i of the unit holds no memory of ours (it was never touched or it was given back)
 *   resident bytes (lean.h) = pages marked resident over all units (a page run or a span counts whole)
 *   units_free_resident()   = those of free units
 */
#ifndef HAK_UNIT_H
#define HAK_UNIT_H

#include "base.h"
#include "live.h"
#include "os.h"

#define UNIT_INLINE_WORDS 8   /* bitmap words in the record: up to 512 blocks, 128 B and larger */
#define UNIT_EXTRA_WORDS 64   /* for smaller blocks: up to 4,096 */

typedef enum { UNIT_VIRGIN, UNIT_FREE, UNIT_SLAB, UNIT_RUN, UNIT_RUN_TAIL } unit_state;

/* 128 bytes; `slab` owns the block fields, `large` the run fields. */
typedef struct __attribute__((aligned(64))) unit {
    uint8_t state, cls, listed;
    bool bare;             /* no block that is free in it stands on resident pages; set where that was found */
    uint16_t resident;     /* bit per page */
    uint16_t hint;         /* first bitmap word worth a look */
    uint16_t nfree;        /* bits set in the bitmap */
    uint16_t gone;         /* pages not resident of which the kernel had nothing when asked; asked anew of each new owner */
    uint32_t carved;       /* blocks [0, carved) have been handed out at least once */
    struct slab_heap *owner; /* thread whose current slab this is */
    struct unit *next, *prev;
    struct unit *cand_next, **cand_at; /* cand_at NULL: no candidate */
    uint32_t run_units;    /* page run: length; kept when freed, so that a second free is named as such */
    uint32_t run_slack;    /* page run: bytes asked for = run_units * UNIT_SIZE - run_slack */
    uint64_t bits[UNIT_INLINE_WORDS]; /* bit set: the block is free and in the slab */
} unit;
_Static_assert(sizeof(unit) == 128, "a SuperSlab's records fill whole pages");

extern HIDDEN unit *unit_table;
extern uint64_t *unit_extra;

bool units_init(void);          /* after os_init; false: no memory for the tables, and may be called again */
bool units_know(size_t end);    /* units [0, end) become known; false: out of memory */
size_t units_known(void);       /* that many, the first ones */

static inline unit *unit_record(size_t u) { return &unit_table[u]; }
static inline size_t unit_number(const unit *r) { return (size_t)(r - unit_table); }
static inline uint64_t *unit_bits(unit *r, unsigned blocks) {
    return blocks <= UNIT_INLINE_WORDS * 64 ? r->bits : unit_extra + unit_number(r) * UNIT_EXTRA_WORDS;
}

static inline unsigned unit_page_count(void) { return 1u << (UNIT_SHIFT - hak_page_shift); }
/* The pages, a bit each, of bytes [from, to) of a unit. */
static inline uint16_t unit_pages(size_t from, size_t to) {
    return (uint16_t)(bits32((unsigned)((to - 1) >> hak_page_shift) + 1) & ~bits32((unsigned)(from >> hak_page_shift)));
}

/* What a unit is, in one word: state, class, resident pages, then two figures: of a slab the blocks that left it and those that
 * came back, of a run (its first unit) its length and its slack. */
static inline uint64_t unit_word(const unit *r) {
    bool slab = r->state == UNIT_SLAB, run = r->state == UNIT_RUN;
    uint64_t a = slab ? r->carved - r->nfree : run ? r->run_units : 0, b = slab ? r->nfree : run ? r->run_slack : 0;
    return r->state | (uint64_t)(slab ? r->cls : 0) << 3 | (uint64_t)r->resident << 9 | a << 25 | b << 41;
}
static inline void unit_tell(const unit *r) { live_unit(unit_number(r), unit_word(r)); }

/* Resident pages of a unit in use. Only its owner (a slab's class lock) calls these. */
void unit_mark_resident(unit *r, size_t from, size_t to); /* byte offsets in the unit */
/* Pages to be given back together. Their units' locks are held until unit_release_now. */
typedef struct {
    os_range range[OS_RANGES];
    struct {
        unit *of;
        uint16_t pages;
    } part[OS_RANGES];
    size_t n;
} unit_release;
void unit_release_add(unit_release *b, unit *r, uint16_t pages);
void unit_release_now(unit_release *b);

/* Below: callers hold the SuperSlab lock. */
void units_taken(size_t first, size_t n); /* they were free and are in use */
void units_given(size_t first, size_t n); /* they were in use and are free */
void unit_set_resident(unit *r, uint16_t pages, bool in_use); /* its pages came or went without its owner */
size_t units_forget(size_t first, size_t n); /* the pages of free units are gone; how many there were */
size_t units_free_resident(void);

#endif
