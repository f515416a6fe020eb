/* superslab: cuts the arena into SuperSlabs and these into 64 KiB units; decides with `policy` what stays resident.
 *
 *   SuperSlab  ss_units units. Kinds:
 *                NONE    reserved, or given back with its mapping            no magic
 *                CLEAN   usable, empty, no resident pages (retired)          no magic
 *                DIRTY   usable, empty, may be resident (cached)             magic
 *                UNITS   some units in use: used != 0                        magic
 *                SPAN    head of `span` SuperSlabs that serve one allocation magic
 *                TAIL    the others of a span                                no magic
 *   unit       dense record in unit_table; the class of a unit also stands in hak_unit_class, the byte map that free() reads
 *
 * Invariants, under ss_lock:
 *   used   bit u set <=> unit u is a slab or part of a page run
 *   nonzero bit u clear => unit u reads as zeros
 *   unit.resident bit i clear => page i of the unit holds no memory of ours (it was never touched or it was given back)
 *   resident bytes = pages marked resident over all units (a page run or a span counts whole)
 */
#ifndef HAK_SUPERSLAB_H
#define HAK_SUPERSLAB_H

#include "base.h"
#include "lean.h"
#include "live.h"
#include "os.h"

#define SS_MAGIC 0x48414b4du
#define UNIT_INLINE_WORDS 8   /* bitmap words in the record: up to 512 blocks, 128 B and larger */
#define UNIT_EXTRA_WORDS 64   /* for smaller blocks: up to 4,096 */

typedef enum { SS_NONE, SS_CLEAN, SS_DIRTY, SS_UNITS, SS_SPAN, SS_TAIL } ss_kind;
typedef enum { UNIT_VIRGIN, UNIT_FREE, UNIT_SLAB, UNIT_RUN, UNIT_RUN_TAIL } unit_state;

typedef struct SuperSlab {
    uint32_t magic;
    uint8_t kind, listed, huge; /* huge: MADV_HUGEPAGE was asked for */
    uint32_t used, nonzero;
    uint32_t span;              /* SuperSlabs in the span, head only; kept when freed, so that a second free is named as such */
    size_t bytes;               /* of the span that are in use, head only */
    struct SuperSlab *next, *prev;
} SuperSlab;

/* 128 bytes; `slab` owns the block fields, `large` the run fields. */
typedef struct __attribute__((aligned(64))) unit {
    uint8_t state, cls, listed, candidate;
    uint16_t resident;     /* bit per page */
    uint16_t hint;         /* first bitmap word worth a look */
    uint32_t nfree;        /* bits set in the bitmap */
    uint32_t carved;       /* blocks [0, carved) have been handed out at least once */
    struct slab_heap *owner; /* thread whose current slab this is */
    struct unit *next, *prev;
    struct unit *cand_next, **cand_at;
    uint32_t run_units;    /* page run: length; kept when freed, so that a second free is named as such */
    uint32_t run_slack;    /* page run: bytes asked for = run_units * UNIT_SIZE - run_slack */
    uint64_t bits[UNIT_INLINE_WORDS]; /* bit set: the block is free and in the slab */
} unit;
_Static_assert(sizeof(unit) == 128, "a SuperSlab's records fill whole pages");

extern HIDDEN unit *unit_table;
extern uint64_t *unit_extra;
extern unsigned ss_units, ss_shift;

bool ss_init(void); /* after os_init and gates_load; false: no memory for the tables, and may be called again */
void ss_lock_all(void), ss_unlock_all(void);

/* Whether k adjacent units are taken from SuperSlabs that hold other blocks too, or are a span. Where addresses are scarce they are packed,
 * from one SuperSlab into the next, if a span would leave more than a quarter of its addresses unused. */
bool ss_shares_superslabs(size_t k);
/* k such units, aligned to `align` units (a power of two; 1 for more than half a SuperSlab); SIZE_MAX: out of memory. */
size_t ss_units_alloc(unsigned k, unsigned align, bool *zeroed);
void ss_units_free(size_t first, unsigned k);

/* n adjacent SuperSlabs aligned to `align` bytes; the first unit, or SIZE_MAX. `bytes` (<= n SuperSlabs) will be used. */
size_t ss_span_alloc(size_t n, size_t align, size_t bytes, bool *zeroed);
void ss_span_free(SuperSlab *head);
/* In place, or by moving page tables; the new head, or NULL and nothing has changed. */
SuperSlab *ss_span_resize(SuperSlab *head, size_t n, size_t bytes);
SuperSlab *ss_of_unit(size_t u);
size_t ss_first_unit(const SuperSlab *ss);
bool ss_known_unit(size_t u); /* has a record */
static inline size_t ss_bytes(void) { return (size_t)ss_units << UNIT_SHIFT; }

static inline unit *unit_record(size_t u) { return &unit_table[u]; }
static inline size_t unit_number(const unit *r) { return (size_t)(r - unit_table); }
static inline uint64_t *unit_bits(unit *r, unsigned blocks) {
    return blocks <= UNIT_INLINE_WORDS * 64 ? r->bits : unit_extra + unit_number(r) * UNIT_EXTRA_WORDS;
}

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
/* What a SuperSlab is: kind and units in use; bytes of a span. */
static inline void ss_words(const SuperSlab *ss, uint64_t word[LIVE_HEAD]) {
    word[0] = ss->kind | (uint64_t)ss->used << 32;
    word[1] = ss->kind == SS_SPAN ? ss->bytes : 0;
}
static inline void unit_tell(const unit *r) { live_unit(unit_number(r), unit_word(r)); }
void ss_tell_all(void); /* every record, to a page that has just been made; callers hold all locks */

/* Resident pages of a unit that is in use. Only its owner (a slab's class lock) calls these. */
void ss_mark_resident(unit *r, size_t from, size_t to); /* byte offsets in the unit */
/* Pages to be given back together. Their units' locks are held until ss_release_now. */
typedef struct {
    os_range range[OS_RANGES];
    struct {
        unit *of;
        uint16_t pages;
    } part[OS_RANGES];
    size_t n;
} ss_release;
void ss_release_add(ss_release *b, unit *r, uint16_t pages);
void ss_release_now(ss_release *b);
unsigned ss_pages_per_unit(void);

bool ss_should_keep_superslab(SuperSlab *ss, int class_idx);
void ss_purge_free(void); /* resident pages of free units and cached SuperSlabs */
void ss_count(size_t *superslabs, size_t *units);

#endif
