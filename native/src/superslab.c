#include "superslab.h"

#include "gates.h"
#include "stats.h"

#include <string.h>
#include <sys/mman.h>

#define META_STEP_UNITS ((size_t)1024)     /* records are made usable for 64 MiB of arena at a time */
#define DIRECT_BYTES (32 * MIB)            /* spans of this size go back at once, in every mode */
#define SUPERSLABS_LOOKED_AT 8             /* for room */
#define HUGE_MIN_BYTES (4 * MIB)           /* smaller spans do not repay a huge page */

unit *unit_table;
uint8_t *hak_unit_class;
uint64_t *unit_extra;
unsigned ss_units = SS_MAX_UNITS, ss_shift;

static SuperSlab *table;
static size_t table_len, top;              /* [0, top) have been used; those above are NONE and virgin */
static size_t known_units;                 /* units with a usable record */
static size_t kind_count[SS_TAIL + 1], kind_hint[SS_TAIL + 1]; /* below the hint there is none of that kind */
static SuperSlab *partial;                 /* UNITS with a free unit */
static size_t free_resident;               /* resident bytes in units that nobody uses */
static hak_lock ss_lock = HAK_LOCK_INIT;

void ss_lock_all(void) { lock(&ss_lock); }
void ss_unlock_all(void) { unlock(&ss_lock); }

/* ---- addresses ---- */

SuperSlab *ss_of_unit(size_t u) { return &table[u >> (ss_shift - UNIT_SHIFT)]; }
size_t ss_first_unit(const SuperSlab *ss) { return (size_t)(ss - table) << (ss_shift - UNIT_SHIFT); }
bool ss_known_unit(size_t u) { return u < __atomic_load_n(&known_units, __ATOMIC_ACQUIRE); }
unsigned ss_pages_per_unit(void) { return 1u << (UNIT_SHIFT - hak_page_shift); }
static char *address_of(const SuperSlab *ss) { return unit_address(ss_first_unit(ss)); }
static uint16_t all_pages(void) { return (uint16_t)bits32(ss_pages_per_unit()); }
static size_t bytes_of(uint16_t pages) { return (size_t)count_ones(pages) << hak_page_shift; }
static uint32_t all_units(void) { return bits32(ss_units); }

/* Entries [from, to) of a table become usable; what stands on a page with those before is usable already. */
static bool commit_entries(void *of, size_t size, size_t from, size_t to) {
    size_t page = (size_t)1 << hak_page_shift, a = round_up(from * size, page), b = round_up(to * size, page);
    return a == b || os_commit((char *)of + a, b - a);
}

static bool know_units(size_t end) {
    if (end <= known_units) return true;
    size_t from = known_units, to = round_up(end, META_STEP_UNITS);
    if (to > hak_arena_units) to = hak_arena_units;
    if (!commit_entries(unit_table, sizeof(unit), from, to) || !commit_entries(hak_unit_class, 1, from, to) ||
        !commit_entries(unit_extra, UNIT_EXTRA_WORDS * sizeof(uint64_t), from, to) ||
        !commit_entries(table, sizeof(SuperSlab), from / ss_units, to / ss_units))
        return false;
    __atomic_store_n(&known_units, to, __ATOMIC_RELEASE);
    if (hak_live) live_show(to);
    return true;
}

/* ---- residency ---- */

static void tell(const SuperSlab *ss) {
    uint64_t word[LIVE_HEAD];
    ss_words(ss, word);
    live_superslab((size_t)(ss - table), word);
}

COLD void ss_tell_all(void) {
    live_show(known_units);
    for (size_t i = 0; i < top; i++) tell(&table[i]);
    for (size_t u = 0; u < top << (ss_shift - UNIT_SHIFT); u++) unit_tell(unit_record(u));
}

static void set_resident(unit *r, uint16_t pages, bool in_use) {
    uint16_t was = r->resident;
    if (was == pages) return;
    size_t grown = bytes_of(pages & (uint16_t)~was), shrunk = bytes_of(was & (uint16_t)~pages);
    lean_add_resident(grown - shrunk);
    if (!in_use) free_resident += grown - shrunk;
    poke(&r->resident, pages);
    unit_tell(r);
}

void ss_mark_resident(unit *r, size_t from, size_t to) { set_resident(r, r->resident | unit_pages(from, to), true); }

void ss_count(size_t *superslabs, size_t *units_used) {
    lock(&ss_lock);
    *superslabs = 0, *units_used = 0;
    for (size_t i = 0; i < top; i++) {
        *superslabs += table[i].kind >= SS_DIRTY;
        *units_used += table[i].kind == SS_UNITS ? count_ones(table[i].used) : 0;
    }
    unlock(&ss_lock);
}

/* ---- what stays resident ---- */

bool ss_should_keep_superslab(SuperSlab *ss, int class_idx) {
    (void)ss, (void)class_idx; /* SuperSlabs are shared by all classes here */
    if (!lean_releases()) return true;
    return !lean_excess() && kind_count[SS_DIRTY] < lean_superslabs_to_keep();
}

void ss_release_now(ss_release *b) {
    size_t done = b->n ? os_madvise_ranges_guarded(b->range, b->n, lean_advice()) : 0;
    for (size_t i = 0; i < done; i++) {
        unit *r = b->part[i].of;
        STAT(lean_decommit);
        STAT_N(pages_released, count_ones(b->part[i].pages));
        set_resident(r, r->resident & (uint16_t)~b->part[i].pages, true);
    }
    b->n = 0;
}

void ss_release_add(ss_release *b, unit *r, uint16_t pages) {
    char *base = unit_address(unit_number(r));
    for (uint32_t left = pages & r->resident; left;) {
        unsigned at = (unsigned)__builtin_ctz(left), n = (unsigned)__builtin_ctz(~(left >> at));
        uint16_t run = (uint16_t)(bits32(at + n) & ~bits32(at));
        if (b->n == OS_RANGES) ss_release_now(b);
        b->range[b->n] = (os_range){base + ((size_t)at << hak_page_shift), (size_t)n << hak_page_shift};
        b->part[b->n].of = r;
        b->part[b->n++].pages = run;
        left &= ~(uint32_t)run;
    }
}

/* ---- SuperSlab kinds ---- */

static void set_kind(SuperSlab *ss, ss_kind kind) {
    size_t i = (size_t)(ss - table);
    kind_count[ss->kind]--;
    kind_count[kind]++;
    if (i < kind_hint[kind]) kind_hint[kind] = i;
    ss->kind = kind;
    ss->magic = kind >= SS_DIRTY && kind != SS_TAIL ? SS_MAGIC : 0; /* cleared: a stale pointer is caught */
    tell(ss);
}

static void list_partial(SuperSlab *ss) {
    if (ss->listed) return;
    ss->listed = 1;
    ss->prev = NULL;
    ss->next = partial;
    if (partial) partial->prev = ss;
    partial = ss;
}

static void unlist_partial(SuperSlab *ss) {
    if (!ss->listed) return;
    ss->listed = 0;
    *(ss->prev ? &ss->prev->next : &partial) = ss->next;
    if (ss->next) ss->next->prev = ss->prev;
}

/* Its pages are gone; how many there were. */
static size_t forget_pages(SuperSlab *ss) {
    size_t before = free_resident;
    for (size_t u = ss_first_unit(ss), e = u + ss_units; u < e; u++) set_resident(unit_record(u), 0, false);
    return (before - free_resident) >> hak_page_shift;
}

/* Give the pages of an empty SuperSlab back: decommit, else drop the mapping, else it stays as it is. */
static void retire(SuperSlab *ss) {
    if (!ss_maybe_decommit_superslab(address_of(ss), ss_bytes())) {
        if (lean_released_reads_zero()) ss->nonzero = 0;
        size_t pages = forget_pages(ss);
        STAT_N(pages_released, pages);
        ss_os_stats_record_lean_retire();
        set_kind(ss, SS_CLEAN);
    } else if (os_uncommit(address_of(ss), ss_bytes())) {
        ss->nonzero = 0;
        ss->huge = 0;
        forget_pages(ss);
        set_kind(ss, SS_NONE);
    } else {
        set_kind(ss, SS_DIRTY);
    }
}

static void emptied(SuperSlab *ss) {
    STAT(ss_empty);
    lean_beat();
    unlist_partial(ss);
    if (ss_should_keep_superslab(ss, -1)) {
        STAT(ss_cached);
        set_kind(ss, SS_DIRTY);
    } else {
        retire(ss);
    }
}

static size_t find_kind(ss_kind kind) {
    if (!kind_count[kind]) return SIZE_MAX;
    for (size_t i = kind_hint[kind]; i < top; i++)
        if (table[i].kind == kind) return kind_hint[kind] = i;
    return SIZE_MAX;
}

static bool grow_top(size_t end) {
    if (end <= top) return true;
    if (!know_units(end << (ss_shift - UNIT_SHIFT)) || !os_reserve(end << ss_shift)) return false;
    kind_count[SS_NONE] += end - top;
    if (top < kind_hint[SS_NONE]) kind_hint[SS_NONE] = top;
    top = end;
    lean_set_metadata(top * sizeof(SuperSlab) + (top << (ss_shift - UNIT_SHIFT)) * (sizeof(unit) + 1));
    return true;
}

static bool commit(size_t first, size_t n) {
    char *at = address_of(&table[first]);
    if (!grow_top(first + n) || !os_commit(at, n << ss_shift)) return false;
    if (ss_mem_lean_enabled()) (void)ss_os_madvise_guarded(at, n << ss_shift, MADV_NOHUGEPAGE);
    else if (gate(G_HUGE_PAGES) == HUGE_ALWAYS) (void)ss_os_madvise_guarded(at, n << ss_shift, MADV_HUGEPAGE);
    STAT_N(ss_new, n);
    return true;
}

static bool make_usable(size_t first, size_t n) {
    for (size_t i = first; i < first + n; i++)
        if (i >= top || table[i].kind == SS_NONE) return commit(first, n);
    return true;
}

/* An empty SuperSlab: resident before clean before new; SIZE_MAX: there is none. */
static size_t find_empty(void) {
    size_t i = find_kind(SS_DIRTY);
    if (i == SIZE_MAX) i = find_kind(SS_CLEAN);
    if (i == SIZE_MAX) i = find_kind(SS_NONE);
    return i != SIZE_MAX ? i : top < table_len ? top : SIZE_MAX;
}

/* ---- units ---- */

/* The units of a SuperSlab from *u up to `end`, which *u moves to; as bits. */
static uint32_t part(const SuperSlab *ss, size_t *u, size_t end) {
    size_t first = ss_first_unit(ss), from = *u - first;
    *u = end < first + ss_units ? end : first + ss_units;
    return bits32((unsigned)(*u - first)) & ~bits32((unsigned)from);
}

/* Lowest position of k set bits in a row, aligned; -1: none. */
static int find_bits(uint32_t m, unsigned k, unsigned align) {
    for (unsigned have = 1; have < k;) {
        unsigned s = have < k - have ? have : k - have;
        m &= m >> s;
        have += s;
    }
    for (unsigned at; m; m &= m - 1)
        if (!((at = (unsigned)__builtin_ctz(m)) & (align - 1))) return (int)at;
    return -1;
}

static int find_units(const SuperSlab *ss, unsigned k, unsigned align) {
    uint32_t avail = ~ss->used & all_units();
    int at = find_bits(avail & ss->nonzero, k, align); /* what was touched before is likely resident */
    return at >= 0 ? at : find_bits(avail, k, align);
}

/* The fullest of a few that have room: the others may become empty, or keep room for what needs many units in a row. */
static size_t find_within_one(unsigned k, unsigned align) {
    const SuperSlab *best = NULL;
    unsigned fullest = 0, looked = 0;
    for (const SuperSlab *ss = partial; ss && looked < SUPERSLABS_LOOKED_AT; ss = ss->next) {
        if (find_units(ss, k, align) < 0) continue;
        looked++;
        if (count_ones(ss->used) > fullest) best = ss, fullest = count_ones(ss->used);
    }
    size_t i = best ? (size_t)(best - table) : find_empty();
    if (i == SIZE_MAX) return SIZE_MAX;
    return ss_first_unit(&table[i]) + (i < top ? (unsigned)find_units(&table[i], k, align) : 0);
}

/* The first k free units in a row, wherever SuperSlabs begin and end. */
static size_t find_across(unsigned k) {
    size_t i, before = 0; /* free units at the end of those before */
    for (i = 0; i < top; i++) {
        uint32_t used = table[i].used;
        unsigned from_start = used ? (unsigned)__builtin_ctz(used) : ss_units;
        if (before + from_start >= k) break;
        int at = k <= ss_units ? find_bits(~used & all_units(), k, 1) : -1;
        if (at >= 0) return ss_first_unit(&table[i]) + (unsigned)at;
        before = used ? ss_units - (32 - (unsigned)__builtin_clz(used)) : before + ss_units;
    }
    size_t first = ss_first_unit(&table[i]) - before;
    return first + k <= table_len << (ss_shift - UNIT_SHIFT) ? first : SIZE_MAX;
}

/* Units [first, first + k) become used; false: out of memory. */
static bool claim(size_t first, unsigned k, bool *zeroed) {
    size_t a = first >> (ss_shift - UNIT_SHIFT), n = ((first + k - 1) >> (ss_shift - UNIT_SHIFT)) - a + 1;
    if (gate(G_TINY_USE_SUPERSLAB) ? !make_usable(a, n)
                                   : !grow_top(a + n) || !os_commit(unit_address(first), (size_t)k << UNIT_SHIFT))
        return false;
    *zeroed = true;
    for (size_t u = first; u < first + k;) {
        SuperSlab *ss = ss_of_unit(u);
        if (ss->kind == SS_CLEAN || ss->kind == SS_DIRTY) STAT(ss_reuse);
        if (ss->kind != SS_UNITS) set_kind(ss, SS_UNITS);
        list_partial(ss);
        uint32_t mask = part(ss, &u, first + k);
        if (ss->nonzero & mask) *zeroed = false;
        ss->used |= mask;
        ss->nonzero |= mask;
        tell(ss);
        if (ss->used == all_units()) unlist_partial(ss);
    }
    for (size_t u = first; u < first + k; u++) free_resident -= bytes_of(unit_record(u)->resident);
    return true;
}

bool ss_shares_superslabs(size_t k) {
    if (k <= ss_units / 2) return true;
    return os_addresses_are_scarce() && gate(G_TINY_USE_SUPERSLAB) && k * 4 < round_up(k, ss_units) * 3;
}

size_t ss_units_alloc(unsigned k, unsigned align, bool *zeroed) {
    lock(&ss_lock);
    size_t first = k <= ss_units / 2 ? find_within_one(k, align) : find_across(k);
    if (first != SIZE_MAX && !claim(first, k, zeroed)) first = SIZE_MAX;
    unlock(&ss_lock);
    return first;
}

/* Release the resident pages of a SuperSlab's free units; adjacent units in one call. */
static size_t release_free_units(SuperSlab *ss) {
    size_t first = ss_first_unit(ss), before = free_resident;
    for (unsigned a = 0; a < ss_units; a++) {
        unsigned b = a;
        while (b < ss_units && !(ss->used >> b & 1) && unit_record(first + b)->resident) b++;
        if (a == b) continue;
        if (ss_maybe_decommit_superslab(unit_address(first + a), (size_t)(b - a) << UNIT_SHIFT)) break;
        for (unsigned u = a; u < b; u++) {
            STAT_N(pages_released, count_ones(unit_record(first + u)->resident));
            set_resident(unit_record(first + u), 0, false);
        }
        if (lean_released_reads_zero()) ss->nonzero &= ~(bits32(b) & ~bits32(a));
        a = b;
    }
    return before - free_resident;
}

static void free_part(SuperSlab *ss, uint32_t mask) {
    ss->used &= ~mask;
    tell(ss);
    if (!ss->used && !gate(G_TINY_USE_SUPERSLAB)) { /* some of it is gone already, so it cannot pass for usable */
        unlist_partial(ss);
        if (os_uncommit(address_of(ss), ss_bytes())) {
            forget_pages(ss);
            ss->nonzero = 0;
        }
        set_kind(ss, SS_NONE);
    } else if (!ss->used) {
        emptied(ss);
    } else {
        list_partial(ss);
        if (lean_releases() &&
            (lean_excess() || free_resident > DIRTY_SLACK_UNITS * UNIT_SIZE + lean_superslabs_to_keep() * ss_bytes()))
            (void)release_free_units(ss);
    }
}

void ss_units_free(size_t first, unsigned k) {
    lock(&ss_lock);
    bool gone = !gate(G_TINY_USE_SUPERSLAB) && os_uncommit(unit_address(first), (size_t)k << UNIT_SHIFT);
    for (size_t u = first; u < first + k; u++) {
        free_resident += bytes_of(unit_record(u)->resident);
        if (gone) set_resident(unit_record(u), 0, false);
    }
    for (size_t u = first; u < first + k;) {
        SuperSlab *ss = ss_of_unit(u);
        uint32_t mask = part(ss, &u, first + k);
        if (gone) ss->nonzero &= ~mask;
        free_part(ss, mask);
    }
    unlock(&ss_lock);
}

void ss_purge_free(void) {
    lock(&ss_lock);
    for (size_t i = 0; i < top && free_resident; i++) {
        if (table[i].kind == SS_DIRTY) retire(&table[i]);
        else if (table[i].kind == SS_UNITS) (void)release_free_units(&table[i]);
    }
    unlock(&ss_lock);
}

/* ---- spans ---- */

static bool is_empty_kind(const SuperSlab *ss) { return ss->kind <= SS_DIRTY; }

/* Best fit over runs of empty SuperSlabs, those with resident ones first; else above top. */
static size_t find_span(size_t n, size_t align) {
    size_t best = SIZE_MAX, best_len = SIZE_MAX, step = align >> ss_shift;
    bool best_dirty = false;
    size_t run_end;
    for (size_t i = 0; i < top; i = run_end + 1) {
        bool dirty = false;
        for (run_end = i; run_end < top && is_empty_kind(&table[run_end]); run_end++) dirty |= table[run_end].kind == SS_DIRTY;
        size_t at = i;
        if (step > 1) at = ((round_up(hak_arena_base + (i << ss_shift), align) - hak_arena_base) >> ss_shift);
        if (at + n > run_end) continue;
        if (dirty > best_dirty || (dirty == best_dirty && run_end - i < best_len))
            best = at, best_len = run_end - i, best_dirty = dirty;
    }
    if (best != SIZE_MAX) return best;
    size_t at = top;
    while (at > 0 && is_empty_kind(&table[at - 1])) at--; /* a run of empty ones may reach up to top */
    if (step > 1) at = ((round_up(hak_arena_base + (at << ss_shift), align) - hak_arena_base) >> ss_shift);
    return at + n <= table_len ? at : SIZE_MAX;
}

/* [first, first + n) become usable parts of a span that uses `bytes` from `from` on. */
static bool occupy(size_t first, size_t n, size_t from, size_t bytes, bool *zeroed) {
    if (!make_usable(first, n)) return false;
    *zeroed = true;
    for (size_t i = first; i < first + n; i++) {
        SuperSlab *ss = &table[i];
        if (ss->nonzero) *zeroed = false;
        size_t u = ss_first_unit(ss);
        for (size_t off = from + ((i - first) << ss_shift); u < ss_first_unit(ss) + ss_units; u++, off += UNIT_SIZE) {
            unit *r = unit_record(u);
            free_resident -= bytes_of(r->resident);
            r->state = UNIT_RUN_TAIL;
            size_t left = bytes > off ? bytes - off : 0;
            if (left > UNIT_SIZE) left = UNIT_SIZE;
            set_resident(r, r->resident | (uint16_t)bits32((unsigned)div_up(left, (size_t)1 << hak_page_shift)), true);
            unit_tell(r);
        }
        ss->nonzero = all_units();
        ss->used = all_units();
        ss->span = 0;
        set_kind(ss, SS_TAIL);
    }
    return true;
}

static void want_huge(size_t first, size_t bytes) {
    if (gate(G_HUGE_PAGES) == HUGE_NEVER || ss_mem_lean_enabled() || bytes < HUGE_MIN_BYTES || ss_bytes() < 2 * MIB) return;
    size_t n = bytes >> ss_shift, a = first; /* only SuperSlabs that are used whole: a tail would cost resident memory */
    while (a < first + n && table[a].huge) a++;
    if (a == first + n) return;
    if (ss_os_madvise_guarded(address_of(&table[a]), (first + n - a) << ss_shift, MADV_HUGEPAGE)) return;
    for (size_t i = a; i < first + n; i++) table[i].huge = 1;
}

static SuperSlab *make_span(size_t first, size_t n, size_t bytes) {
    SuperSlab *head = &table[first];
    set_kind(head, SS_SPAN);
    head->span = (uint32_t)n;
    head->bytes = bytes;
    tell(head);
    return head;
}

/* The pages of empty SuperSlabs elsewhere move to where a span has none: a move costs less than to clear as much, and what spans keep
 * resident is then what they held at once at most, whatever the holes between them. */
static void bring_pages(size_t first, size_t n) {
    if (!kind_count[SS_DIRTY] || !grow_top(first + n)) return;
    for (size_t to = first, from = top; to < first + n; to++) {
        if (table[to].kind == SS_DIRTY) continue;
        do {
            if (from-- == 0) return;
        } while (table[from].kind != SS_DIRTY || (from >= first && from < first + n));
        if (!os_move(address_of(&table[from]), address_of(&table[to]), ss_bytes())) return;
        for (size_t u = ss_first_unit(&table[to]), e = u + ss_units, v = ss_first_unit(&table[from]); u < e; u++, v++) {
            unit_record(u)->state = UNIT_FREE;
            set_resident(unit_record(u), unit_record(v)->resident, false);
        }
        forget_pages(&table[from]);
        table[to].nonzero = table[from].nonzero;
        table[to].huge = table[from].huge;
        table[from].nonzero = 0;
        set_kind(&table[to], SS_DIRTY);
        set_kind(&table[from], SS_CLEAN);
    }
}

COLD size_t ss_span_alloc(size_t n, size_t align, size_t bytes, bool *zeroed) {
    if (n > table_len) return SIZE_MAX;
    lock(&ss_lock);
    size_t first = find_span(n, align);
    if (first != SIZE_MAX) bring_pages(first, n);
    if (first != SIZE_MAX && occupy(first, n, 0, bytes, zeroed)) {
        make_span(first, n, bytes);
        want_huge(first, bytes);
        first = ss_first_unit(&table[first]);
        STAT(span_alloc);
    } else {
        first = SIZE_MAX;
    }
    unlock(&ss_lock);
    return first;
}

/* SuperSlabs [first, first + n) of a span become empty ones. */
static void vacate(size_t first, size_t n, bool give_back) {
    size_t kept = 0;
    for (size_t i = first; i < first + n; i++) {
        SuperSlab *ss = &table[i];
        for (size_t u = ss_first_unit(ss), e = u + ss_units; u < e; u++) {
            unit_record(u)->state = UNIT_FREE;
            unit_tell(unit_record(u));
            free_resident += bytes_of(unit_record(u)->resident);
        }
        ss->used = 0;
        kept += !give_back && ss_should_keep_superslab(ss, -1);
        set_kind(ss, SS_DIRTY);
    }
    STAT_N(ss_cached, kept);
    if (kept == n) return;
    first += kept;
    n -= kept;
    bool gone = give_back && os_uncommit(address_of(&table[first]), n << ss_shift);
    bool lazy = !gone && lean_releases() && !ss_maybe_decommit_superslab(address_of(&table[first]), n << ss_shift);
    if (!gone && !lazy && lean_releases()) gone = os_uncommit(address_of(&table[first]), n << ss_shift); /* advice refused */
    if (!gone && !lazy) return;
    for (size_t i = first; i < first + n; i++) {
        SuperSlab *ss = &table[i];
        if (gone) ss->huge = 0;
        if (gone || lean_released_reads_zero()) ss->nonzero = 0;
        size_t pages = forget_pages(ss);
        if (lazy) {
            STAT_N(pages_released, pages);
            ss_os_stats_record_lean_retire();
        }
        set_kind(ss, gone ? SS_NONE : SS_CLEAN);
    }
}

COLD void ss_span_free(SuperSlab *head) {
    lock(&ss_lock);
    STAT(span_free);
    vacate((size_t)(head - table), head->span, head->bytes >= DIRECT_BYTES);
    unlock(&ss_lock);
}

static bool follows_free(size_t first, size_t n) {
    if (first + n > table_len) return false;
    for (size_t i = first; i < first + n && i < top; i++)
        if (!is_empty_kind(&table[i])) return false;
    return true;
}

static bool grow_span(size_t first, size_t had, size_t n, size_t bytes) {
    if (!follows_free(first + had, n - had)) return false;
    bool zeroed;
    bring_pages(first + had, n - had);
    return occupy(first + had, n - had, had << ss_shift, bytes, &zeroed);
}

COLD SuperSlab *ss_span_resize(SuperSlab *head, size_t n, size_t bytes) {
    lock(&ss_lock);
    size_t first = (size_t)(head - table), had = head->span, old_bytes = head->bytes;
    bool zeroed;
    SuperSlab *now = NULL;
    if (n < had) {
        vacate(first + n, had - n, old_bytes >= DIRECT_BYTES);
        now = make_span(first, n, bytes);
    } else if (n == had || grow_span(first, had, n, bytes)) {
        now = make_span(first, n, bytes);
        for (size_t off = old_bytes & ~UNIT_MASK; off < bytes && off < had << ss_shift; off += UNIT_SIZE)
            ss_mark_resident(unit_record(ss_first_unit(head) + (off >> UNIT_SHIFT)), 0,
                             bytes - off < UNIT_SIZE ? bytes - off : UNIT_SIZE);
        want_huge(first, bytes);
    } else {
        size_t to = find_span(n, ss_bytes());
        if (to != SIZE_MAX && occupy(to, n, 0, bytes, &zeroed)) {
            if (os_move(address_of(&table[first]), address_of(&table[to]), had << ss_shift)) {
                now = make_span(to, n, bytes);
                for (size_t i = 0; i < had; i++) table[to + i].huge = table[first + i].huge;
                for (size_t u = ss_first_unit(head), e = u + (had << (ss_shift - UNIT_SHIFT)); u < e; u++)
                    set_resident(unit_record(u), 0, true);
                vacate(first, had, true);
                STAT(realloc_moved_pages);
            } else {
                vacate(to, n, true);
            }
        }
    }
    unlock(&ss_lock);
    return now;
}

/* ---- start ---- */

static void prewarm(void) {
    int mode = (int)gate(G_SS_PREWARM);
    size_t n = (size_t)count_ones((unsigned)gate(G_SS_PREWARM_CLASSES));
    if (ss_mem_lean_enabled() || mode == PREWARM_OFF || !n || n > table_len || !gate(G_TINY_USE_SUPERSLAB) || !commit(0, n)) return;
    for (size_t i = 0; i < n; i++) {
        set_kind(&table[i], mode == PREWARM_TOUCH ? SS_DIRTY : SS_CLEAN);
        if (mode != PREWARM_TOUCH) continue;
        for (size_t u = ss_first_unit(&table[i]), e = u + ss_units; u < e; u++) {
            for (size_t off = 0; off < UNIT_SIZE; off += (size_t)1 << hak_page_shift) *(volatile char *)(unit_address(u) + off) = 0;
            set_resident(unit_record(u), all_pages(), false);
        }
    }
}

bool ss_init(void) {
    ss_units = SS_MAX_UNITS >> gate(G_SS_SIZE_KB);
    ss_shift = UNIT_SHIFT + (unsigned)__builtin_ctz(ss_units);
    table_len = hak_arena_units / ss_units;
    size_t page = (size_t)1 << hak_page_shift, table_bytes = round_up(table_len * sizeof(SuperSlab), page);
    size_t class_bytes = round_up(hak_arena_units, page);
    if ((!table && !(table = os_metadata(table_bytes, "SuperSlab table"))) ||
        (!hak_unit_class && !(hak_unit_class = os_metadata(class_bytes, "class map"))) ||
        (!unit_table && !(unit_table = os_metadata(round_up(hak_arena_units * sizeof(unit), page), "unit records"))) ||
        (!unit_extra && !(unit_extra = os_metadata(round_up(hak_arena_units * UNIT_EXTRA_WORDS * 8, page), "bitmaps"))) ||
        !os_show(hak_unit_class, class_bytes))
        return false;
    prewarm();
    return true;
}
