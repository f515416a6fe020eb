#include "span.h"

#include "gates.h"
#include "stats.h"

#include <sys/mman.h>

#define DIRECT_BYTES (32 * MIB)  /* spans of this size go back at once, in every mode */
#define HUGE_MIN_BYTES (4 * MIB) /* smaller spans do not repay a huge page */

static bool is_empty_kind(const SuperSlab *ss) { return ss->kind <= SS_DIRTY; }

/* Best fit over runs of empty SuperSlabs, those with resident ones first, and at these where they are the thread's own; else above top. */
static size_t find_span(size_t n, size_t align) {
    size_t best = SIZE_MAX, best_len = SIZE_MAX, step = align >> ss_shift;
    ss_rank best_rank = RANK_NOT_RESIDENT;
    size_t run_end;
    for (size_t i = 0; i < ss_top; i = run_end + 1) {
        ss_rank rank = RANK_NOT_RESIDENT;
        size_t at = i;
        for (run_end = i; run_end < ss_top && is_empty_kind(&ss_table[run_end]); run_end++) {
            ss_rank one = ss_rank_of(&ss_table[run_end]);
            if (one > rank && (rank = one) == RANK_OWN) at = run_end;
        }
        if (at + n > run_end && i + n <= run_end) at = run_end - n;
        if (step > 1) at = ((round_up(hak_arena_base + (i << ss_shift), align) - hak_arena_base) >> ss_shift);
        if (at + n > run_end) continue;
        if (rank > best_rank || (rank == best_rank && run_end - i < best_len)) best = at, best_len = run_end - i, best_rank = rank;
    }
    if (best != SIZE_MAX) return best;
    size_t at = ss_top;
    while (at > 0 && is_empty_kind(&ss_table[at - 1])) at--; /* a run of empty ones may reach up to top */
    if (step > 1) at = ((round_up(hak_arena_base + (at << ss_shift), align) - hak_arena_base) >> ss_shift);
    return at + n <= ss_limit() ? at : SIZE_MAX;
}

/* [first, first + n) become usable parts of a span that uses `bytes` from `from` on. */
static bool occupy(size_t first, size_t n, size_t from, size_t bytes, bool *zeroed) {
    if (!ss_make_usable(first, n)) return false;
    *zeroed = true;
    for (size_t i = first; i < first + n; i++) {
        SuperSlab *ss = &ss_table[i];
        if (ss->nonzero) *zeroed = false;
        ss_count_reuse(ss);
        units_taken(ss_first_unit(ss), ss_units);
        size_t u = ss_first_unit(ss);
        for (size_t off = from + ((i - first) << ss_shift); u < ss_first_unit(ss) + ss_units; u++, off += UNIT_SIZE) {
            unit *r = unit_record(u);
            r->state = UNIT_RUN_TAIL;
            if (off < bytes) unit_mark_resident(r, 0, bytes - off < UNIT_SIZE ? bytes - off : UNIT_SIZE);
            unit_tell(r);
        }
        ss->nonzero = bits32(ss_units);
        ss->used = bits32(ss_units);
        ss->span = 0;
        ss_set_kind(ss, SS_TAIL);
    }
    return true;
}

static void want_huge(size_t first, size_t bytes) {
    if (gate(G_HUGE_PAGES) == HUGE_NEVER || ss_mem_lean_enabled() || bytes < HUGE_MIN_BYTES || ss_bytes() < 2 * MIB) return;
    size_t n = bytes >> ss_shift, a = first; /* only SuperSlabs that are used whole: a tail would cost resident memory */
    while (a < first + n && ss_table[a].huge) a++;
    if (a == first + n) return;
    if (ss_os_madvise_guarded(ss_address(&ss_table[a]), (first + n - a) << ss_shift, MADV_HUGEPAGE)) return;
    for (size_t i = a; i < first + n; i++) ss_table[i].huge = 1;
}

static SuperSlab *make_span(size_t first, size_t n, size_t bytes) {
    SuperSlab *head = &ss_table[first];
    head->span = (uint32_t)n;
    head->bytes = bytes;
    ss_set_kind(head, SS_SPAN);
    return head;
}

/* The pages of empty SuperSlabs elsewhere move to where a span has none: a move costs less than to clear as much, and what spans keep
 * resident is then what they held at once at most, whatever the holes between them. */
static void bring_pages(size_t first, size_t n) {
    if (!ss_kept() || !ss_grow_top(first + n)) return;
    for (size_t to = first, from = ss_top; to < first + n; to++) {
        if (ss_table[to].kind == SS_DIRTY) continue;
        do {
            if (from-- == 0) return;
        } while (ss_table[from].kind != SS_DIRTY || (from >= first && from < first + n));
        if (!os_move(ss_address(&ss_table[from]), ss_address(&ss_table[to]), ss_bytes())) return;
        for (size_t u = ss_first_unit(&ss_table[to]), e = u + ss_units, v = ss_first_unit(&ss_table[from]); u < e; u++, v++) {
            unit_record(u)->state = UNIT_FREE;
            unit_set_resident(unit_record(u), unit_record(v)->resident, false);
        }
        units_forget(ss_first_unit(&ss_table[from]), ss_units);
        ss_table[to].nonzero = ss_table[from].nonzero;
        ss_table[to].huge = ss_table[from].huge;
        ss_table[from].nonzero = 0;
        ss_set_kind(&ss_table[to], SS_DIRTY);
        ss_set_kind(&ss_table[from], SS_CLEAN);
    }
}

COLD size_t span_alloc(size_t n, size_t align, size_t bytes, bool *zeroed) {
    if (n > ss_limit()) return SIZE_MAX;
    ss_lock_all();
    size_t first = find_span(n, align);
    if (first != SIZE_MAX) bring_pages(first, n);
    if (first != SIZE_MAX && occupy(first, n, 0, bytes, zeroed)) {
        make_span(first, n, bytes);
        want_huge(first, bytes);
        first = ss_first_unit(&ss_table[first]);
        STAT(span_alloc);
    } else {
        first = SIZE_MAX;
    }
    ss_unlock_all();
    return first;
}

/* SuperSlabs [first, first + n) of a span become empty ones. */
static void vacate(size_t first, size_t n, bool give_back) {
    size_t kept = 0;
    STAT_N(ss_empty, n);
    if (!give_back) lean_beat();
    for (size_t i = first; i < first + n; i++) {
        SuperSlab *ss = &ss_table[i];
        for (size_t u = ss_first_unit(ss), e = u + ss_units; u < e; u++) {
            unit_record(u)->state = UNIT_FREE;
            unit_tell(unit_record(u));
        }
        units_given(ss_first_unit(ss), ss_units);
        ss->used = 0;
        kept += !give_back && (ss_set_aside(ss) || ss_should_keep_superslab(ss, -1));
        ss_set_kind(ss, SS_DIRTY);
    }
    STAT_N(ss_cached, kept);
    if (lean_releases()) lean_freed(kept << ss_shift);
    if (kept == n) return;
    first += kept;
    n -= kept;
    uint64_t t0 = lean_releases() ? os_cpu_ns() : 0;
    bool gone = give_back && os_uncommit(ss_address(&ss_table[first]), n << ss_shift);
    bool lazy = !gone && lean_releases() && !ss_maybe_decommit_superslab(ss_address(&ss_table[first]), n << ss_shift);
    if (!gone && !lazy && lean_releases()) gone = os_uncommit(ss_address(&ss_table[first]), n << ss_shift); /* advice refused */
    if (lean_releases()) lean_spent_since(t0);
    if (!gone && !lazy) return;
    for (size_t i = first; i < first + n; i++) {
        SuperSlab *ss = &ss_table[i];
        if (gone) ss->huge = 0;
        if (gone || lean_released_reads_zero()) ss->nonzero = 0;
        size_t pages = units_forget(ss_first_unit(ss), ss_units);
        if (lazy) {
            STAT_N(pages_released, pages);
            ss_os_stats_record_lean_retire();
        }
        ss_set_kind(ss, gone ? SS_NONE : SS_CLEAN);
    }
}

COLD void span_free(SuperSlab *head) {
    ss_lock_all();
    STAT(span_free);
    vacate((size_t)(head - ss_table), head->span, head->bytes >= DIRECT_BYTES);
    ss_unlock_all();
}

static bool follows_free(size_t first, size_t n) {
    if (first + n > ss_limit()) return false;
    for (size_t i = first; i < first + n && i < ss_top; i++)
        if (!is_empty_kind(&ss_table[i])) return false;
    return true;
}

static bool grow_span(size_t first, size_t had, size_t n, size_t bytes) {
    if (!follows_free(first + had, n - had)) return false;
    bool zeroed;
    bring_pages(first + had, n - had);
    return occupy(first + had, n - had, had << ss_shift, bytes, &zeroed);
}

COLD SuperSlab *span_resize(SuperSlab *head, size_t n, size_t bytes) {
    ss_lock_all();
    size_t first = (size_t)(head - ss_table), had = head->span, old_bytes = head->bytes;
    bool zeroed;
    SuperSlab *now = NULL;
    if (n < had) {
        vacate(first + n, had - n, old_bytes >= DIRECT_BYTES);
        now = make_span(first, n, bytes);
    } else if (n == had || grow_span(first, had, n, bytes)) {
        now = make_span(first, n, bytes);
        for (size_t off = old_bytes & ~UNIT_MASK; off < bytes && off < had << ss_shift; off += UNIT_SIZE)
            unit_mark_resident(unit_record(ss_first_unit(head) + (off >> UNIT_SHIFT)), 0,
                               bytes - off < UNIT_SIZE ? bytes - off : UNIT_SIZE);
        want_huge(first, bytes);
    } else {
        size_t to = find_span(n, ss_bytes());
        if (to != SIZE_MAX && occupy(to, n, 0, bytes, &zeroed)) {
            if (os_move(ss_address(&ss_table[first]), ss_address(&ss_table[to]), had << ss_shift)) {
                now = make_span(to, n, bytes);
                for (size_t i = 0; i < had; i++) ss_table[to + i].huge = ss_table[first + i].huge;
                for (size_t u = ss_first_unit(head), e = u + (had << (ss_shift - UNIT_SHIFT)); u < e; u++)
                    unit_set_resident(unit_record(u), 0, true);
                vacate(first, had, true);
                STAT(realloc_moved_pages);
            } else {
                vacate(to, n, true);
            }
        }
    }
    ss_unlock_all();
    return now;
}
