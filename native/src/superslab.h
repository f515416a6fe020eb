/* superslab: cuts the arena into SuperSlabs and these into 64 KiB units; asks lean which of them stay resident when empty.
 *
 *   SuperSlab  ss_units units. Kinds:
 *                NONE    reserved, or given back with its mapping            no magic
 *                CLEAN   usable, empty, no resident pages (retired)          no magic
 *                DIRTY   usable, empty, may be resident (cached)             magic
 *                UNITS   some units in use: used != 0                        magic
 *                SPAN    head of `span` SuperSlabs that serve one allocation magic
 *                TAIL    the others of a span                                no magic
 *
 * Invariants, under ss_lock:
 *   used    bit u set <=> unit u is in use
 *   nonzero bit u clear => unit u reads as zeros
 *   SuperSlabs [0, ss_top) have been used; those above are NONE and virgin, up to ss_limit()
 * Whoever has a known unit may read its SuperSlab without the lock.
 */
#ifndef HAK_SUPERSLAB_H
#define HAK_SUPERSLAB_H

#include "base.h"
#include "lean.h"
#include "unit.h"

#define SS_MAGIC 0x48414b4du

typedef enum { SS_NONE, SS_CLEAN, SS_DIRTY, SS_UNITS, SS_SPAN, SS_TAIL } ss_kind;

typedef struct SuperSlab {
    uint32_t magic;
    uint8_t kind, listed, huge; /* huge: MADV_HUGEPAGE was asked for */
    uint32_t used, nonzero;
    uint32_t span;              /* SuperSlabs in the span, head only; kept when freed, so that a second free is named as such */
    size_t bytes;               /* of the span that are in use, head only */
    struct SuperSlab *next, *prev;
    const void *set_aside_by;   /* DIRTY only: the thread that takes it first; NULL: nobody's */
} SuperSlab;

extern unsigned ss_units, ss_shift;
extern HIDDEN SuperSlab *ss_table;

bool ss_init(void); /* after os_init and gates_load; false: no memory for the tables, and may be called again */
void ss_lock_all(void), ss_unlock_all(void);

/* Whether k adjacent units are taken from SuperSlabs that hold other blocks too, or are a span. Where addresses are scarce they are packed,
 * from one SuperSlab into the next, if a span would leave more than a quarter of its addresses unused. */
bool ss_shares_superslabs(size_t k);
/* k such units, aligned to `align` units (a power of two; 1 for more than half a SuperSlab); SIZE_MAX: out of memory. */
size_t ss_units_alloc(unsigned k, unsigned align, bool *zeroed);
void ss_units_free(size_t first, unsigned k);

static inline SuperSlab *ss_of_unit(size_t u) { return &ss_table[u >> (ss_shift - UNIT_SHIFT)]; }
static inline size_t ss_first_unit(const SuperSlab *ss) { return (size_t)(ss - ss_table) << (ss_shift - UNIT_SHIFT); }
static inline char *ss_address(const SuperSlab *ss) { return unit_address(ss_first_unit(ss)); }
static inline size_t ss_bytes(void) { return (size_t)ss_units << UNIT_SHIFT; }

/* What a SuperSlab is: kind and units in use; bytes of a span. */
static inline void ss_words(const SuperSlab *ss, uint64_t word[LIVE_HEAD]) {
    word[0] = ss->kind | (uint64_t)ss->used << 32;
    word[1] = ss->kind == SS_SPAN ? ss->bytes : 0;
}
void ss_tell_all(void); /* every record, to a page that has just been made; callers hold all locks */

bool ss_should_keep_superslab(SuperSlab *ss, int class_idx);
/* SS_CACHE_THREAD: an empty SuperSlab, about to become DIRTY, is the calling thread's; false: it has enough of them, or Lean is above its
 * target. Other threads take it before any that is not resident. Callers hold ss_lock. */
bool ss_set_aside(SuperSlab *ss);
typedef enum { RANK_NOT_RESIDENT, RANK_OTHERS, RANK_NOBODYS, RANK_OWN } ss_rank;
ss_rank ss_rank_of(const SuperSlab *ss); /* of an empty one: the highest is taken first */
void ss_count_reuse(const SuperSlab *ss); /* it is about to be used */
void ss_join(void); /* the thread may set aside: its end will be known */
void ss_leave(void); /* it ends: what it set aside is everybody's, or goes back */
void ss_purge_free(bool kept); /* resident pages of free units, and of empty SuperSlabs that were kept */
void ss_count(size_t *superslabs, size_t *units);

/* Whole SuperSlabs, for spans; callers hold ss_lock, and change what stands in ss_table. */
extern HIDDEN size_t ss_top;
static inline size_t ss_limit(void) { return hak_arena_units >> (ss_shift - UNIT_SHIFT); }
bool ss_grow_top(size_t end); /* SuperSlabs [0, end) have addresses and records; false: out of memory */
bool ss_make_usable(size_t first, size_t n); /* no NONE is among them; false: out of memory */
void ss_set_kind(SuperSlab *ss, ss_kind kind);
size_t ss_kept(void); /* how many are DIRTY */

#endif
