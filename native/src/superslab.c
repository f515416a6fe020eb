#include "superslab.h"

#include "gates.h"
#include "stats.h"

#include <sys/mman.h>

#define META_STEP_UNITS ((size_t)1024) /* records are made usable for 64 MiB of arena at a time */
#define SUPERSLABS_LOOKED_AT 8         /* for room */

unsigned ss_units = SS_MAX_UNITS, ss_shift;
SuperSlab *ss_table;
size_t ss_top;

static size_t kind_count[SS_TAIL + 1], kind_hint[SS_TAIL + 1]; /* below the hint there is none of that kind */
static SuperSlab *partial; /* UNITS with a free unit */
static size_t set_aside;   /* DIRTY ones that are some thread's */
static _Thread_local bool self; /* has joined; its address names the thread */
static hak_lock ss_lock = HAK_LOCK_INIT;

void ss_lock_all(void) { lock(&ss_lock); }
void ss_unlock_all(void) { unlock(&ss_lock); }

size_t ss_kept(void) { return kind_count[SS_DIRTY]; }

static void tell(const SuperSlab *ss) {
    uint64_t word[LIVE_HEAD];
    ss_words(ss, word);
    live_superslab((size_t)(ss - ss_table), word);
}

COLD void ss_tell_all(void) {
    live_show(units_known());
    for (size_t i = 0; i < ss_top; i++) tell(&ss_table[i]);
    for (size_t u = 0; u < ss_top << (ss_shift - UNIT_SHIFT); u++) unit_tell(unit_record(u));
}

void ss_count(size_t *superslabs, size_t *units_used) {
    lock(&ss_lock);
    *superslabs = 0, *units_used = 0;
    for (size_t i = 0; i < ss_top; i++) {
        *superslabs += ss_table[i].kind >= SS_DIRTY;
        *units_used += ss_table[i].kind == SS_UNITS ? count_ones(ss_table[i].used) : 0;
    }
    unlock(&ss_lock);
}

/* ---- what stays resident ---- */

bool ss_should_keep_superslab(SuperSlab *ss, int class_idx) {
    (void)ss, (void)class_idx; /* SuperSlabs are shared by all classes here */
    if (!lean_releases()) return true;
    return (!lean_excess() && ss_kept() - set_aside < lean_superslabs_to_keep()) || !lean_may_spend();
}

bool ss_set_aside(SuperSlab *ss) {
    size_t most = (size_t)gate(G_SS_CACHE_THREAD), have = 0;
    if (!most || !self || lean_excess()) return false;
    for (size_t i = kind_hint[SS_DIRTY]; i < ss_top && set_aside && have < most; i++) have += ss_table[i].set_aside_by == &self;
    if (have == most) return false;
    ss->set_aside_by = &self;
    set_aside++;
    STAT(ss_cached_thread);
    return true;
}

/* ---- SuperSlab kinds ---- */

void ss_set_kind(SuperSlab *ss, ss_kind kind) {
    size_t i = (size_t)(ss - ss_table);
    if (ss->kind == SS_DIRTY && ss->set_aside_by) {
        ss->set_aside_by = NULL;
        set_aside--;
    }
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

/* Give the pages of an empty SuperSlab back: decommit, else drop the mapping, else it stays as it is. */
static void retire(SuperSlab *ss) {
    if (!ss_maybe_decommit_superslab(ss_address(ss), ss_bytes())) {
        if (lean_released_reads_zero()) ss->nonzero = 0;
        size_t pages = units_forget(ss_first_unit(ss), ss_units);
        STAT_N(pages_released, pages);
        ss_os_stats_record_lean_retire();
        ss_set_kind(ss, SS_CLEAN);
    } else if (os_uncommit(ss_address(ss), ss_bytes())) {
        ss->nonzero = 0;
        ss->huge = 0;
        units_forget(ss_first_unit(ss), ss_units);
        ss_set_kind(ss, SS_NONE);
    } else {
        ss_set_kind(ss, SS_DIRTY);
    }
}

static void retire_now(SuperSlab *ss) {
    uint64_t t0 = os_cpu_ns();
    retire(ss);
    lean_spent_since(t0);
}

static void emptied(SuperSlab *ss) {
    STAT(ss_empty);
    lean_beat();
    unlist_partial(ss);
    if (ss_set_aside(ss) || ss_should_keep_superslab(ss, -1)) {
        STAT(ss_cached);
        ss_set_kind(ss, SS_DIRTY);
    } else {
        retire_now(ss);
    }
}

static size_t find_kind(ss_kind kind) {
    if (!kind_count[kind]) return SIZE_MAX;
    for (size_t i = kind_hint[kind]; i < ss_top; i++)
        if (ss_table[i].kind == kind) return kind_hint[kind] = i;
    return SIZE_MAX;
}

ss_rank ss_rank_of(const SuperSlab *ss) {
    if (ss->kind != SS_DIRTY) return RANK_NOT_RESIDENT;
    return !ss->set_aside_by ? RANK_NOBODYS : ss->set_aside_by == &self ? RANK_OWN : RANK_OTHERS;
}

void ss_count_reuse(const SuperSlab *ss) {
    if (ss->kind == SS_CLEAN || ss->kind == SS_DIRTY) STAT(ss_reuse);
    if (ss_rank_of(ss) == RANK_OWN) STAT(ss_reuse_thread);
}

static size_t find_kept(void) {
    size_t best = find_kind(SS_DIRTY);
    for (size_t i = best; set_aside && i < ss_top; i++)
        if (ss_rank_of(&ss_table[i]) > ss_rank_of(&ss_table[best])) best = i;
    return best;
}

void ss_join(void) { self = true; }

void ss_leave(void) {
    self = false;
    if (!gate(G_SS_CACHE_THREAD)) return;
    lock(&ss_lock);
    for (size_t i = kind_hint[SS_DIRTY]; i < ss_top && set_aside; i++) {
        SuperSlab *ss = &ss_table[i];
        if (ss->set_aside_by != &self) continue;
        bool keep = ss_should_keep_superslab(ss, -1);
        ss_set_kind(ss, SS_DIRTY);
        if (!keep) retire_now(ss);
    }
    unlock(&ss_lock);
}

static bool know(size_t end) {
    size_t from = units_known() / ss_units, to = round_up(end * ss_units, META_STEP_UNITS);
    if (end <= from) return true;
    if (to > hak_arena_units) to = hak_arena_units;
    return os_commit_entries(ss_table, sizeof(SuperSlab), from, to / ss_units) && units_know(to);
}

bool ss_grow_top(size_t end) {
    if (end <= ss_top) return true;
    if (!know(end) || !os_reserve(end << ss_shift)) return false;
    kind_count[SS_NONE] += end - ss_top;
    if (ss_top < kind_hint[SS_NONE]) kind_hint[SS_NONE] = ss_top;
    ss_top = end;
    lean_set_metadata(ss_top * sizeof(SuperSlab) + (ss_top << (ss_shift - UNIT_SHIFT)) * (sizeof(unit) + 1));
    return true;
}

/* With pages of the size that Lean or the gate wants. */
static bool commit_range(char *at, size_t size) {
    if (!os_commit(at, size)) return false;
    if (ss_mem_lean_enabled()) (void)ss_os_madvise_guarded(at, size, MADV_NOHUGEPAGE);
    else if (gate(G_HUGE_PAGES) == HUGE_ALWAYS) (void)ss_os_madvise_guarded(at, size, MADV_HUGEPAGE);
    return true;
}

static bool commit(size_t first, size_t n) {
    if (!ss_grow_top(first + n) || !commit_range(ss_address(&ss_table[first]), n << ss_shift)) return false;
    STAT_N(ss_new, n);
    return true;
}

bool ss_make_usable(size_t first, size_t n) {
    for (size_t i = first; i < first + n; i++)
        if (i >= ss_top || ss_table[i].kind == SS_NONE) return commit(first, n);
    return true;
}

/* An empty SuperSlab: resident before clean before new; SIZE_MAX: there is none. */
static size_t find_empty(void) {
    size_t i = find_kept();
    if (i == SIZE_MAX) i = find_kind(SS_CLEAN);
    if (i == SIZE_MAX) i = find_kind(SS_NONE);
    return i != SIZE_MAX ? i : ss_top < ss_limit() ? ss_top : SIZE_MAX;
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
    uint32_t avail = ~ss->used & bits32(ss_units);
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
    size_t i = best ? (size_t)(best - ss_table) : find_empty();
    if (i == SIZE_MAX) return SIZE_MAX;
    return ss_first_unit(&ss_table[i]) + (i < ss_top ? (unsigned)find_units(&ss_table[i], k, align) : 0);
}

/* The first k free units in a row, wherever SuperSlabs begin and end. */
static size_t find_across(unsigned k) {
    size_t i, before = 0; /* free units at the end of those before */
    for (i = 0; i < ss_top; i++) {
        uint32_t used = ss_table[i].used;
        unsigned from_start = used ? (unsigned)__builtin_ctz(used) : ss_units;
        if (before + from_start >= k) break;
        int at = k <= ss_units ? find_bits(~used & bits32(ss_units), k, 1) : -1;
        if (at >= 0) return ss_first_unit(&ss_table[i]) + (unsigned)at;
        before = used ? ss_units - (32 - (unsigned)__builtin_clz(used)) : before + ss_units;
    }
    size_t first = ss_first_unit(&ss_table[i]) - before;
    return first + k <= ss_limit() << (ss_shift - UNIT_SHIFT) ? first : SIZE_MAX;
}

/* Units [first, first + k) become used; false: out of memory. */
static bool claim(size_t first, unsigned k, bool *zeroed) {
    size_t a = first >> (ss_shift - UNIT_SHIFT), n = ((first + k - 1) >> (ss_shift - UNIT_SHIFT)) - a + 1;
    if (gate(G_TINY_USE_SUPERSLAB) ? !ss_make_usable(a, n)
                                   : !ss_grow_top(a + n) || !commit_range(unit_address(first), (size_t)k << UNIT_SHIFT))
        return false;
    *zeroed = true;
    for (size_t u = first; u < first + k;) {
        SuperSlab *ss = ss_of_unit(u);
        ss_count_reuse(ss);
        if (ss->kind != SS_UNITS) ss_set_kind(ss, SS_UNITS);
        list_partial(ss);
        uint32_t mask = part(ss, &u, first + k);
        if (ss->nonzero & mask) *zeroed = false;
        ss->used |= mask;
        ss->nonzero |= mask;
        tell(ss);
        if (ss->used == bits32(ss_units)) unlist_partial(ss);
    }
    units_taken(first, k);
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
static void release_free_units(SuperSlab *ss) {
    size_t first = ss_first_unit(ss);
    for (unsigned a = 0; a < ss_units; a++) {
        unsigned b = a;
        while (b < ss_units && !(ss->used >> b & 1) && unit_record(first + b)->resident) b++;
        if (a == b) continue;
        if (ss_maybe_decommit_superslab(unit_address(first + a), (size_t)(b - a) << UNIT_SHIFT)) break;
        size_t pages = units_forget(first + a, b - a);
        STAT_N(pages_released, pages);
        if (lean_released_reads_zero()) ss->nonzero &= ~(bits32(b) & ~bits32(a));
        a = b;
    }
}

static bool too_much_is_free(void) {
    if (lean_excess()) return true;
    size_t kept = (lean_superslabs_to_keep() + set_aside) * ss_bytes();
    return units_free_resident() > DIRTY_SLACK_UNITS * UNIT_SIZE + kept;
}

static void free_part(SuperSlab *ss, uint32_t mask) {
    ss->used &= ~mask;
    tell(ss);
    if (!ss->used && !gate(G_TINY_USE_SUPERSLAB)) { /* some of it is gone already, so it cannot pass for usable */
        unlist_partial(ss);
        if (os_uncommit(ss_address(ss), ss_bytes())) {
            units_forget(ss_first_unit(ss), ss_units);
            ss->nonzero = 0;
            ss->huge = 0;
        }
        ss_set_kind(ss, SS_NONE);
    } else if (!ss->used) {
        emptied(ss);
    } else {
        list_partial(ss);
        if (!lean_releases() || !too_much_is_free() || !lean_may_spend()) return;
        uint64_t t0 = os_cpu_ns();
        release_free_units(ss);
        lean_spent_since(t0);
    }
}

void ss_units_free(size_t first, unsigned k) {
    lock(&ss_lock);
    bool gone = !gate(G_TINY_USE_SUPERSLAB) && os_uncommit(unit_address(first), (size_t)k << UNIT_SHIFT);
    units_given(first, k);
    if (gone) units_forget(first, k);
    for (size_t u = first; u < first + k;) {
        SuperSlab *ss = ss_of_unit(u);
        uint32_t mask = part(ss, &u, first + k);
        if (gone) ss->nonzero &= ~mask;
        free_part(ss, mask);
    }
    unlock(&ss_lock);
}

/* Kept while the CPU budget was spent. */
static bool is_surplus(const SuperSlab *ss) { return !ss->set_aside_by && ss_kept() - set_aside > lean_superslabs_to_keep(); }

void ss_purge_free(bool kept) {
    lock(&ss_lock);
    for (size_t i = 0; i < ss_top && units_free_resident(); i++) {
        SuperSlab *ss = &ss_table[i];
        if (ss->kind == SS_UNITS) release_free_units(ss);
        else if (ss->kind == SS_DIRTY && (kept || is_surplus(ss))) retire(ss);
    }
    unlock(&ss_lock);
}

/* ---- start ---- */

static void prewarm(void) {
    int mode = (int)gate(G_SS_PREWARM);
    size_t n = (size_t)count_ones((unsigned)gate(G_SS_PREWARM_CLASSES));
    if (ss_mem_lean_enabled() || mode == PREWARM_OFF || !n || n > ss_limit() || !gate(G_TINY_USE_SUPERSLAB) || !commit(0, n))
        return;
    for (size_t i = 0; i < n; i++) {
        ss_set_kind(&ss_table[i], mode == PREWARM_TOUCH ? SS_DIRTY : SS_CLEAN);
        if (mode != PREWARM_TOUCH) continue;
        for (size_t u = ss_first_unit(&ss_table[i]), e = u + ss_units; u < e; u++) {
            for (size_t off = 0; off < UNIT_SIZE; off += (size_t)1 << hak_page_shift) *(volatile char *)(unit_address(u) + off) = 0;
            unit_set_resident(unit_record(u), unit_pages(0, UNIT_SIZE), false);
        }
    }
}

bool ss_init(void) {
    ss_units = SS_MAX_UNITS >> gate(G_SS_SIZE_KB);
    ss_shift = UNIT_SHIFT + (unsigned)__builtin_ctz(ss_units);
    size_t bytes = round_up(ss_limit() * sizeof(SuperSlab), (size_t)1 << hak_page_shift);
    if ((!ss_table && !(ss_table = os_metadata(bytes, "SuperSlab table"))) || !units_init()) return false;
    prewarm();
    return true;
}
