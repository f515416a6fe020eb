#include "slab.h"

#include "diag.h"
#include "gates.h"
#include "policy.h"
#include "stats.h"

#include <sched.h>
#include <string.h>

uintptr_t hak_secret;
#if HAK_CHECKS
block hak_sentinel = {NULL, 1}; /* 1 is neither the secret nor 0, which the secret is before the start */
#endif

typedef struct __attribute__((aligned(64))) {
    hak_lock lock;
    unit *partial;    /* slabs of nobody with blocks in them */
    unit *candidates; /* slabs that blocks came back to since the last purge */
    chain depot[DEPOT_CHAINS];
    unsigned depot_count;
} slab_class;

static slab_class classes[CLASSES + 1];
static size_t freed_since_purge, purge_step = PURGE_STEP_BYTES;

#define GROUPS 64
#define SLABS_LOOKED_AT 8
typedef struct {
    unit *slab;
    uint32_t word;
    uint64_t mask;
} group;

void slab_init(void) {
    for (unsigned c = 0; c <= CLASSES; c++) classes[c].lock = (hak_lock)HAK_LOCK_INIT;
    hak_secret = os_random() | 2;
}

void slab_lock_all(void) {
    for (unsigned c = 1; c <= CLASSES; c++) lock(&classes[c].lock);
}
void slab_unlock_all(void) {
    for (unsigned c = 1; c <= CLASSES; c++) unlock(&classes[c].lock);
}

unsigned slab_cap(unsigned cls, policy_pressure pressure) {
    unsigned cap = policy_cap(hak_class[cls].size, hak_class[cls].octave, (unsigned)gate(G_TINY_MAG_SCALE_PCT), pressure);
    return gate(G_TINY_MAG_LEVELS) == LEVELS_2 && cap > 2 ? cap / 2 : cap; /* two levels share the capacity */
}

bool slab_cached(unsigned cls) { return policy_caches(hak_class[cls].size, lean_pressure()); }

slab_route slab_decide(unsigned cls) {
    unsigned cap = slab_cap(cls, lean_pressure());
    return (slab_route){policy_batch(hak_class[cls].size, REFILL_BYTES, cap), lean_releases()};
}

/* ---- lists ---- */

static size_t in_slab(const unit *s) { return s->nfree + (hak_class[s->cls].count - s->carved); }
static bool is_empty(const unit *s) { return in_slab(s) == hak_class[s->cls].count; }
static size_t unit_number(const unit *s) { return (size_t)(s - unit_table); }

static bool is_free_bit(unit *s, unsigned i) { return peek(&unit_bits(s, hak_class[s->cls].count)[i / 64]) >> (i % 64) & 1; }

static void list_slab(slab_class *k, unit *s) {
    s->listed = 1;
    s->prev = NULL;
    s->next = k->partial;
    if (k->partial) k->partial->prev = s;
    k->partial = s;
}

static void unlist_slab(slab_class *k, unit *s) {
    s->listed = 0;
    *(s->prev ? &s->prev->next : &k->partial) = s->next;
    if (s->next) s->next->prev = s->prev;
}

static void make_candidate(slab_class *k, unit *s) {
    if (s->candidate) return;
    s->candidate = 1;
    s->cand_at = &k->candidates;
    if ((s->cand_next = k->candidates)) s->cand_next->cand_at = &s->cand_next;
    poke(&k->candidates, s);
}

static void drop_candidate(unit *s) {
    if (!s->candidate) return;
    s->candidate = 0;
    poke(s->cand_at, s->cand_next);
    if (s->cand_next) s->cand_next->cand_at = s->cand_at;
}

/* ---- making and ending slabs ---- */

static unit *new_slab(slab_heap *h, unsigned cls) {
    size_t u;
    bool zeroed;
    if (h->warm_count) {
        STAT(warm_hit);
        u = h->warm[--h->warm_count];
    } else if ((u = ss_units_alloc(1, 1, &zeroed)) == SIZE_MAX) {
        return NULL;
    }
    unit *s = unit_record(u);
    if (s->state != UNIT_VIRGIN) /* a record that was never used is zero, and need not become resident */
        memset(unit_bits(s, hak_class[cls].count), 0, div_up(hak_class[cls].count, 64) * 8);
    s->state = UNIT_SLAB;
    s->cls = (uint8_t)cls;
    s->listed = s->candidate = 0;
    s->hint = 0;
    s->nfree = s->carved = 0;
    s->run_units = 0;
    s->owner = NULL;
    poke(&hak_unit_class[u], slab_cached(cls) ? (uint8_t)cls : 0);
    STAT(refill_new);
    stat_octave(hak_class[cls].octave, OCT_SLAB_LIVE, 1);
    unit_tell(s);
    return s;
}

/* An empty slab of nobody, on no list. */
static void end_slab(slab_heap *h, unit *s) {
    stat_octave(hak_class[s->cls].octave, OCT_EMPTY, 1);
    drop_candidate(s);
    s->state = UNIT_FREE;
    unit_tell(s);
    poke(&hak_unit_class[unit_number(s)], 0);
    if (h && h->warm_count < (unsigned)gate(G_WARM_POOL) && !lean_releases()) {
        STAT(warm_put);
        h->warm[h->warm_count++] = unit_number(s);
        return;
    }
    ss_units_free(unit_number(s), 1);
}

/* ---- refill ---- */

static uint16_t pages_of(size_t from, size_t to) {
    return (uint16_t)(bits32((unsigned)((to - 1) >> hak_page_shift) + 1) & ~bits32((unsigned)(from >> hak_page_shift)));
}

/* free() may take the fast way in this slab while no page of a carved block is given back, and threads may keep its blocks. */
static void show_class(unit *s) {
    size_t carved = (size_t)s->carved * hak_class[s->cls].size;
    bool whole = !carved || !(pages_of(0, carved) & (uint16_t)~s->resident);
    poke(&hak_unit_class[unit_number(s)], whole && slab_cached(s->cls) ? s->cls : 0);
}

/* Blocks whose pages were given back become resident again when they are handed out. */
static void touch_blocks(unit *s, unsigned word, uint64_t mask) {
    size_t size = hak_class[s->cls].size;
    for (; mask; mask &= mask - 1) {
        size_t at = (word * 64 + (unsigned)__builtin_ctzll(mask)) * size;
        ss_mark_resident(s, at, at + size);
    }
    show_class(s);
}

static uint64_t on_resident_pages(const unit *s, unsigned word, uint64_t mask) {
    size_t size = hak_class[s->cls].size;
    for (uint64_t left = mask; left; left &= left - 1) {
        unsigned bit = (unsigned)__builtin_ctzll(left);
        size_t at = (word * 64 + bit) * size;
        if (pages_of(at, at + size) & (uint16_t)~s->resident) mask &= ~((uint64_t)1 << bit);
    }
    return mask;
}

/* Take up to `want` freed blocks, from resident pages only or from any; returns how many. */
static unsigned take_freed(unit *s, unsigned want, bool resident, group *g, unsigned *groups) {
    const class_info *c = &hak_class[s->cls];
    uint64_t *bits = unit_bits(s, c->count);
    bool all_resident = peek(&hak_unit_class[unit_number(s)]) != 0, left_some = false;
    unsigned got = 0, w = s->hint, words = (unsigned)div_up(c->count, 64);
    for (; w < words && got < want && *groups < GROUPS && s->nfree; w++) {
        uint64_t mask = bits[w];
        if (mask && resident && !all_resident && (mask = on_resident_pages(s, w, mask)) != bits[w]) left_some = true;
        if (!mask) continue;
        unsigned n = count_ones(mask);
        while (n > want - got) mask &= ~((uint64_t)1 << (63 - __builtin_clzll(mask))), n--;
        poke(&bits[w], bits[w] & ~mask);
        s->nfree -= n;
        got += n;
        if (!all_resident) touch_blocks(s, w, mask);
        g[(*groups)++] = (group){s, w, mask};
        if (got == want) break;
    }
    if (left_some) return got;
    s->hint = (uint16_t)(s->nfree && w < words ? w : 0);
    return got;
}

/* Blocks never handed out yet: up to the end of the page the first one ends in, so that no further page is touched. */
static unsigned carve(unit *s, unsigned want, group *g, unsigned *groups) {
    const class_info *c = &hak_class[s->cls];
    size_t page = (size_t)1 << hak_page_shift, from = (size_t)s->carved * c->size;
    unsigned upto = (unsigned)(round_up(from + c->size, page) / c->size), got = 0;
    if (upto > c->count) upto = c->count;
    if (upto > s->carved + want) upto = s->carved + want;
    while (s->carved < upto && *groups < GROUPS) {
        unsigned w = s->carved / 64, bit = s->carved % 64, n = upto - s->carved;
        if (n > 64 - bit) n = 64 - bit;
        g[(*groups)++] = (group){s, w, bits64(n) << bit};
        poke(&s->carved, s->carved + n);
        got += n;
    }
    if (got) ss_mark_resident(s, from, (size_t)s->carved * c->size);
    return got;
}

static chain link_blocks(const group *g, unsigned groups, unsigned cls) {
    size_t size = hak_class[cls].size;
    chain out = {LIST_END, 0};
    for (unsigned i = groups; i-- > 0;) { /* backwards, so that the chain runs in address order */
        char *base = unit_address(unit_number(g[i].slab)) + (size_t)g[i].word * 64 * size;
        for (uint64_t m = g[i].mask; m; out.count++) {
            unsigned bit = 63 - (unsigned)__builtin_clzll(m);
            m &= ~((uint64_t)1 << bit);
            block *b = (block *)(base + bit * size);
            hak_block_link(b, out.head);
            out.head = b;
        }
    }
    return out;
}

static void make_current(slab_heap *h, slab_class *k, unit *s) {
    unit *was = h->current[s->cls];
    if (s->listed) unlist_slab(k, s);
    s->owner = h;
    h->current[s->cls] = s;
    if (!was || was == s) return;
    was->owner = NULL;
    if (in_slab(was)) list_slab(k, was);
}

/* Above the target no page is taken again while there are free blocks on resident ones: those of a few other slabs come first. */
static unsigned take_from_others(slab_heap *h, slab_class *k, unsigned want, group *g, unsigned *groups) {
    unsigned looked = 0, n;
    for (unit *s = k->partial; s && looked++ < SLABS_LOOKED_AT; s = s->next)
        if ((n = take_freed(s, want, true, g, groups))) return make_current(h, k, s), n;
    return 0;
}

chain slab_refill(slab_heap *h, unsigned cls, const slab_route *decided) {
    slab_route r = decided ? *decided : slab_decide(cls);
    slab_class *k = &classes[cls];
    group g[GROUPS];
    unsigned groups = 0, got = 0;
    lock(&k->lock);
    bool sparing = lean_pressure() == PRESSURE_HIGH;
    while (got < r.batch && groups < GROUPS) {
        unit *s = h->current[cls];
        if (!s && (s = k->partial)) {
            if (got) break; /* enough: leave other slabs alone */
            STAT(refill_partial);
        } else if (!s && (got || !(s = new_slab(h, cls)))) {
            break;
        }
        make_current(h, k, s);
        unsigned n = take_freed(s, r.batch - got, sparing, g, &groups);
        if (!n && !got && sparing) n = take_from_others(h, k, r.batch, g, &groups);
        if (!n && !got && sparing) n = take_freed(s, r.batch, false, g, &groups);
        if (!n && !got) n = carve(s, r.batch - got, g, &groups);
        unit_tell(h->current[cls]);
        if (!n && got) break;
        if (!n) { /* used up: it comes back to the list when a block does */
            s->owner = NULL;
            h->current[cls] = NULL;
        }
        got += n;
    }
    unlock(&k->lock);
    chain out = link_blocks(g, groups, cls);
    stat_octave(hak_class[cls].octave, OCT_TAKEN, out.count);
    if (decided ? r.lean : lean_releases()) slab_purge_if_over();
    return out;
}

/* ---- flush ---- */

UNSEEN bool slab_on_list(const block *b) {
    while (HAK_CHECKS && peek(&b->mac) == slab_mark_of(peek(&b->next))) sched_yield();
    return hak_block_looks_free(b);
}

/* Where a block stands; ends the program for what is not a block of this class. */
static unit *locate(const block *b, unsigned cls, unsigned *index) {
    size_t u = unit_of(b), off = (uintptr_t)b & UNIT_MASK;
    if (!in_arena(b) || !ss_known_unit(u)) hak_fatal("corrupted free list", b, hak_class[cls].size);
    unit *s = unit_record(u);
    const class_info *c = &hak_class[cls];
    unsigned i = (unsigned)((off * (uint64_t)c->reciprocal) >> 32);
    if (s->state != UNIT_SLAB || s->cls != cls) hak_fatal("double free", b, c->size);
    if (off != (size_t)i * c->size || i >= c->count) hak_fatal("invalid free (interior pointer)", b, c->size);
    *index = i;
    return s;
}

/* Group the next blocks of a chain by (slab, word), outside any lock. */
static unsigned gather(chain *c, unsigned cls, group *g) {
    unsigned groups = 0;
    while (c->count) {
        block *b = c->head;
        if (HAK_CHECKS && !slab_on_list(b)) slab_bad_link(b, cls);
        unsigned i, j;
        unit *s = locate(b, cls, &i);
        for (j = groups; j-- > 0;)
            if (g[j].slab == s && g[j].word == i / 64) break;
        if (j == UINT32_MAX) {
            if (groups == GROUPS) return groups;
            g[j = groups++] = (group){s, i / 64, 0};
        }
        uint64_t bit = (uint64_t)1 << (i % 64);
        if (g[j].mask & bit) hak_fatal("double free", b, hak_class[cls].size);
        g[j].mask |= bit;
        c->head = b->next;
        c->count--;
    }
    return groups;
}

static void put_group(slab_heap *h, slab_class *k, const group *g) {
    unit *s = g->slab;
    const class_info *c = &hak_class[s->cls];
    uint64_t *bits = unit_bits(s, c->count), twice = bits[g->word] & g->mask;
    unsigned last = g->word * 64 + 63 - (unsigned)__builtin_clzll(g->mask), n = count_ones(g->mask);
    if (unlikely(twice != 0))
        hak_fatal("double free", unit_address(unit_number(s)) + (g->word * 64 + (size_t)__builtin_ctzll(twice)) * c->size, c->size);
    if (unlikely(last >= s->carved))
        hak_fatal("invalid free (never allocated)", unit_address(unit_number(s)) + (size_t)last * c->size, c->size);
    poke(&bits[g->word], bits[g->word] | g->mask);
    s->nfree += n;
    if (g->word < s->hint) s->hint = (uint16_t)g->word;
    stat_add(!s->owner || s->owner == h ? ST_ss_local : ST_ss_remote, n);
    unit_tell(s);
    if (is_empty(s) && (!s->owner || lean_releases())) { /* a thread's current slab stays, but not with Lean */
        if (s->listed) unlist_slab(k, s);
        if (s->owner) s->owner->current[s->cls] = NULL;
        s->owner = NULL;
        end_slab(h, s);
    } else {
        if (!s->owner && !s->listed) list_slab(k, s);
        if (!lean_releases()) return;
        make_candidate(k, s);
        show_class(s);
    }
}

void slab_flush(slab_heap *h, unsigned cls, chain c) {
    slab_class *k = &classes[cls];
    unsigned total = c.count;
    group g[GROUPS];
    while (c.count) {
        unsigned groups = gather(&c, cls, g);
        lock(&k->lock);
        for (unsigned i = 0; i < groups; i++) put_group(h, k, &g[i]);
        unlock(&k->lock);
    }
    stat_octave(hak_class[cls].octave, OCT_RETURNED, total);
    if (lean_releases()) {
        __atomic_fetch_add(&freed_since_purge, (size_t)total * hak_class[cls].size, __ATOMIC_RELAXED);
        slab_purge_if_over();
    }
}

bool slab_depot_put(unsigned cls, chain c) {
    slab_class *k = &classes[cls];
    if (lean_releases() || peek(&k->depot_count) == DEPOT_CHAINS) return false; /* Lean keeps no chains at rest */
    lock(&k->lock);
    bool ok = k->depot_count < DEPOT_CHAINS;
    if (ok) {
        k->depot[k->depot_count] = c;
        poke(&k->depot_count, k->depot_count + 1);
    }
    unlock(&k->lock);
    if (ok) STAT(depot_put);
    return ok;
}

bool slab_depot_get(unsigned cls, chain *c) {
    slab_class *k = &classes[cls];
    if (!peek(&k->depot_count)) return false;
    lock(&k->lock);
    bool ok = k->depot_count > 0;
    if (ok) {
        *c = k->depot[k->depot_count - 1];
        poke(&k->depot_count, k->depot_count - 1);
    }
    unlock(&k->lock);
    return ok;
}

void slab_depot_drain(void) {
    for (unsigned cls = 1; cls <= CLASSES; cls++)
        for (chain c; slab_depot_get(cls, &c);) slab_flush(NULL, cls, c);
}

void slab_abandon(slab_heap *h) {
    for (unsigned cls = 1; cls <= CLASSES; cls++) {
        slab_class *k = &classes[cls];
        if (!lean_releases() && !h->current[cls]) continue; /* with Lean others take empty slabs away: look under the lock */
        lock(&k->lock);
        unit *s = h->current[cls];
        h->current[cls] = NULL;
        if (s) s->owner = NULL;
        if (s && is_empty(s)) end_slab(NULL, s);
        else if (s && in_slab(s)) list_slab(k, s);
        unlock(&k->lock);
    }
    while (h->warm_count) ss_units_free(h->warm[--h->warm_count], 1);
}

/* ---- misuse, looked at slowly ---- */

_Noreturn COLD void slab_bad_link(const block *b, unsigned cls) {
    size_t size = hak_class[cls].size;
    if (b == LIST_END) hak_fatal("double free (which block is not known: two lists share their end)", NULL, size);
    hak_fatal(b->mac == hak_secret ? "double free" : "corrupted free list", b, size);
}

_Noreturn COLD void slab_bad_free(const void *p) {
    size_t u = unit_of(p);
    if (!in_arena(p) || !ss_known_unit(u)) hak_fatal("invalid free (not from hakmem)", p, 0);
    unit *r = unit_record(u);
    size_t off = (uintptr_t)p & UNIT_MASK;
    switch (r->state) {
    case UNIT_VIRGIN: hak_fatal("invalid free (never allocated)", p, 0);
    case UNIT_RUN:
    case UNIT_RUN_TAIL: hak_fatal("invalid free (interior pointer)", p, 0);
    case UNIT_SLAB: hak_fatal("double free", p, hak_class[r->cls].size);
    default: break;
    }
    if (r->run_units || ss_of_unit(u)->span) hak_fatal("double free", p, 0);
    size_t size = hak_class[r->cls].size;
    hak_fatal(size && off % size == 0 ? "double free" : "invalid free (mapping is gone)", p, size);
}

static bool in_depot(const block *b, unsigned cls) {
    slab_class *k = &classes[cls];
    bool found = false;
    lock(&k->lock);
    for (unsigned i = 0; i < k->depot_count && !found; i++)
        for (const block *at = k->depot[i].head; at != LIST_END && !found; at = at->next) found = at == b;
    unlock(&k->lock);
    return found;
}

bool slab_is_free(const block *b, unsigned cls) {
    size_t u = unit_of(b), off = (uintptr_t)b & UNIT_MASK, size = hak_class[cls].size;
    if (off % size) return false;
    if (is_free_bit(unit_record(u), (unsigned)(off / size))) return true;
    const block *n = b->next;
    if (n == LIST_END) return in_depot(b, cls);
    u = unit_of(n);
    if (!in_arena(n) || !ss_known_unit(u) || unit_record(u)->state != UNIT_SLAB || unit_record(u)->cls != cls) return false;
    return ((uintptr_t)n & UNIT_MASK) % size == 0;
}

void slab_check_live(const void *p, const char *what) {
    size_t u = unit_of(p), off = (uintptr_t)p & UNIT_MASK;
    if (!in_arena(p) || !ss_known_unit(u) || unit_record(u)->state != UNIT_SLAB) slab_bad_free(p);
    unit *s = unit_record(u);
    const class_info *c = &hak_class[s->cls];
    unsigned i = (unsigned)((off * (uint64_t)c->reciprocal) >> 32);
    if (off != (size_t)i * c->size || i >= c->count) hak_fatal("invalid free (interior pointer)", p, c->size);
    bool page_gone =
        pages_of(off, off + 1) & (uint16_t)~peek(&s->resident); /* no live block stands on a page that was given back */
    if (page_gone || i >= peek(&s->carved) || is_free_bit(s, i)) hak_fatal(what, p, c->size);
    if (HAK_CHECKS && hak_block_looks_free(p) && slab_is_free(p, s->cls)) hak_fatal(what, p, c->size);
}

/* ---- Lean: free pages of slabs that hold live blocks ---- */

static bool blocks_free(const unit *s, const uint64_t *bits, unsigned from, unsigned to) { /* [from, to) */
    if (to > s->carved) to = s->carved;
    while (from < to) {
        unsigned n = 64 - from % 64;
        if (n > to - from) n = to - from;
        uint64_t mask = bits64(n) << (from % 64);
        if ((bits[from / 64] & mask) != mask) return false;
        from += n;
    }
    return true;
}

static uint16_t free_pages(unit *s) {
    const class_info *c = &hak_class[s->cls];
    const uint64_t *bits = unit_bits(s, c->count);
    uint16_t out = 0;
    for (unsigned i = 0; i < ss_pages_per_unit(); i++) {
        size_t a = (size_t)i << hak_page_shift, b = a + ((size_t)1 << hak_page_shift);
        if ((s->resident >> i & 1) && blocks_free(s, bits, (unsigned)(a / c->size), (unsigned)div_up(b, c->size)))
            out |= (uint16_t)(1u << i);
    }
    return out;
}

static void purge_class(slab_class *k, bool partly) {
    ss_release batch = {.n = 0};
    lock(&k->lock);
    for (unit *s; (s = k->candidates);) {
        drop_candidate(s);
        uint16_t pages = partly || is_empty(s) ? free_pages(s) : 0;
        /* From here on every free in this slab is checked against the bitmap: a page that is gone forgets what was free. */
        if (s->carved && (pages & pages_of(0, (size_t)s->carved * hak_class[s->cls].size)))
            poke(&hak_unit_class[unit_number(s)], 0);
        ss_release_add(&batch, s, pages);
    }
    ss_release_now(&batch);
    unlock(&k->lock);
}

void slab_purge(void) {
    ss_purge_free();
    bool partly = gate(G_SS_PARTIAL_RELEASE);
    for (unsigned c = CLASSES; c >= 1; c--)
        if (peek(&classes[c].candidates)) purge_class(&classes[c], partly);
}

/* Free pages age from the first time they are noticed; a purge starts the clock anew. */
static bool too_old(void) {
    static uint64_t noticed;
    uint64_t limit = (uint64_t)gate(G_SS_LEAN_DECAY_MS) * 1000000, now, since = peek(&noticed);
    if (!limit || !peek(&freed_since_purge)) return false;
    now = os_now_coarse_ns();
    if (!policy_is_due(since, now, limit)) {
        if (!since) poke(&noticed, now);
        return false;
    }
    poke(&noticed, 0);
    return true;
}

static void purge_if_over(size_t least) {
    bool old = too_old(), over = lean_excess() > 0;
    if (!over && !old) {
        STAT(early_under_target);
        return;
    }
    size_t freed = peek(&freed_since_purge), before = lean_resident();
    uint64_t t0;
    if ((freed < least && !old) || !lean_may_purge(&t0)) return;
    poke(&freed_since_purge, 0);
    slab_purge();
    size_t after = lean_resident();
    poke(&purge_step, policy_step(PURGE_STEP_BYTES, after));
    lean_purge_done(t0, over && before < after + freed / 4);
}

void slab_purge_if_over(void) { purge_if_over(peek(&purge_step)); }
void slab_purge_at_rest(void) { purge_if_over(1); }

size_t slab_trim(void) {
    size_t start = lean_resident();
    slab_depot_drain();
    for (unsigned cls = 1; cls <= CLASSES; cls++) {
        slab_class *k = &classes[cls];
        lock(&k->lock);
        for (size_t u = 0; u < hak_arena_units && ss_known_unit(u); u++) /* the class of a slab changes under its lock only */
            if (peek(&unit_record(u)->state) == UNIT_SLAB && peek(&unit_record(u)->cls) == cls) make_candidate(k, unit_record(u));
        unlock(&k->lock);
    }
    slab_purge();
    size_t now = lean_resident();
    return start > now ? start - now : 0;
}

/* ---- walks over the heap ---- */

slab_layout slab_where(void) {
    return (slab_layout){&classes[0].depot_count, &classes[0].depot[0].count, sizeof classes[0], sizeof(chain)};
}

size_t slab_depot_blocks(unsigned cls) {
    size_t n = 0;
    lock(&classes[cls].lock);
    for (unsigned i = 0; i < classes[cls].depot_count; i++) n += classes[cls].depot[i].count;
    unlock(&classes[cls].lock);
    return n;
}

size_t slab_live_bytes(void) {
    size_t live = 0;
    slab_lock_all();
    for (size_t u = 0; u < hak_arena_units && ss_known_unit(u); u++) {
        const unit *s = unit_record(u);
        if (s->state == UNIT_SLAB) live += (hak_class[s->cls].count - in_slab(s)) * hak_class[s->cls].size;
    }
    slab_unlock_all();
    return live;
}

bool slab_check(void) {
    bool ok = true;
    slab_lock_all();
    for (size_t u = 0; u < hak_arena_units && ss_known_unit(u) && ok; u++) {
        unit *s = unit_record(u);
        if (s->state != UNIT_SLAB) continue;
        const class_info *c = &hak_class[s->cls];
        unsigned set = 0;
        for (unsigned w = 0; w < div_up(c->count, 64); w++) set += count_ones(unit_bits(s, c->count)[w]);
        ok = set == s->nfree && s->carved <= c->count && s->nfree <= s->carved && s->listed == (!s->owner && in_slab(s) > 0) &&
             (hak_unit_class[u] == s->cls || hak_unit_class[u] == 0) && (ss_of_unit(u)->used >> (u % ss_units) & 1);
        if (!ok)
            hak_msg("slab %zu breaks an invariant: class %u, free %u of bits %u, carved %u", u, s->cls, s->nfree, set, s->carved);
    }
    slab_unlock_all();
    return ok;
}
