#include "slab.h"

#include "diag.h"
#include "gates.h"
#include "misuse.h"
#include "stats.h"

#include <string.h>

typedef struct __attribute__((aligned(64))) {
    hak_lock lock;
    unit *partial;    /* slabs of nobody with blocks in them */
    unit *candidates; /* slabs that blocks came back to since the last purge */
} slab_class;

static slab_class classes[CLASSES + 1] = {[0 ... CLASSES] = {.lock = HAK_LOCK_INIT}};

#define GROUPS 64
#define SLABS_LOOKED_AT 8
#define BLOCKS_LOOKED_AT 64
typedef struct {
    unit *slab;
    uint32_t word;
    bool fresh; /* never handed out yet */
    uint64_t mask;
} group;

void slab_lock_all(void) {
    for (unsigned c = 1; c <= CLASSES; c++) lock(&classes[c].lock);
}
void slab_unlock_all(void) {
    for (unsigned c = 1; c <= CLASSES; c++) unlock(&classes[c].lock);
}

uint16_t slab_caps[PRESSURE_HIGH + 1][CLASSES + 1];

void slab_init(void) {
    for (unsigned p = PRESSURE_NONE; p <= PRESSURE_HIGH; p++)
        for (unsigned c = 1; c <= CLASSES; c++) {
            unsigned cap = policy_cap(hak_class[c].size, hak_class[c].octave, (unsigned)gate(G_TINY_MAG_SCALE_PCT), p);
            slab_caps[p][c] = (uint16_t)(gate(G_TINY_MAG_LEVELS) == LEVELS_2 && cap > 2 ? cap / 2 : cap); /* two levels share it */
        }
}

bool slab_cached(unsigned cls) { return policy_caches(hak_class[cls].size, lean_pressure()); }

slab_route slab_decide(unsigned cls) {
    unsigned cap = slab_cap(cls, lean_pressure());
    return (slab_route){policy_batch(hak_class[cls].size, REFILL_BYTES, cap), lean_releases()};
}

/* ---- lists ---- */

static size_t in_slab(const unit *s) { return s->nfree + (hak_class[s->cls].count - s->carved); }
static bool is_empty(const unit *s) { return in_slab(s) == hak_class[s->cls].count; }

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
    if (s->cand_at) return;
    s->cand_at = &k->candidates;
    if ((s->cand_next = k->candidates)) s->cand_next->cand_at = &s->cand_next;
    poke(&k->candidates, s);
}

static void drop_candidate(unit *s) {
    if (!s->cand_at) return;
    poke(s->cand_at, s->cand_next);
    if (s->cand_next) s->cand_next->cand_at = s->cand_at;
    s->cand_at = NULL;
}

/* ---- making and ending slabs ---- */

/* A block that was freed twice and handed out between is free by its bit, and out: its memory must not go. Looked for among blocks of 1 KiB and
 * more, of which there are few; of smaller ones it would cost 4 % where all are flushed. [from, to), all free by their bits. */
static void check_are_back(const unit *s, unsigned from, unsigned to) {
    const class_info *c = &hak_class[s->cls];
    if (!HAK_CHECKS || c->count > BLOCKS_LOOKED_AT) return;
    for (unsigned i = from; i < to && i < s->carved; i++) {
        size_t at = (size_t)i * c->size;
        const block *b = (const block *)(unit_address(unit_number(s)) + at);
        if (s->resident & unit_pages(at, at + sizeof *b) && b->mac != block_stamp()) misuse_bad_words(b, s->cls);
    }
}

/* free() takes the fast way in this slab while threads may keep its blocks. */
static void show_class(const unit *s) { poke(&hak_unit_class[unit_number(s)], slab_cached(s->cls) ? s->cls : 0); }

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
    s->listed = s->bare = 0;
    s->cand_at = NULL;
    s->hint = 0;
    s->nfree = 0;
    s->carved = 0;
    s->run_units = 0;
    s->owner = NULL;
    show_class(s);
    STAT(refill_new);
    stat_octave(hak_class[cls].octave, OCT_SLAB_LIVE, 1);
    unit_tell(s);
    return s;
}

/* An empty slab of nobody, on no list. */
static void end_slab(slab_heap *h, unit *s) {
    check_are_back(s, 0, s->carved);
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
    for (unsigned i = 0; i < unit_page_count(); i++) {
        size_t a = (size_t)i << hak_page_shift, b = a + ((size_t)1 << hak_page_shift);
        unsigned from = class_block_of(c, a), to = class_block_of(c, b - 1) + 1;
        if (!(s->resident >> i & 1) || !blocks_free(s, bits, from, to)) continue;
        check_are_back(s, from, to);
        out |= (uint16_t)(1u << i);
    }
    return out;
}

static void purge_class(slab_class *k, bool partly) {
    unit_release batch = {.n = 0};
    lock(&k->lock);
    for (unit *s; (s = k->candidates);) {
        drop_candidate(s);
        unit_release_add(&batch, s, partly || is_empty(s) ? free_pages(s) : 0);
    }
    unit_release_now(&batch);
    unlock(&k->lock);
}

static void purge(bool kept) {
    ss_purge_free(kept);
    bool partly = gate(G_SS_PARTIAL_RELEASE);
    for (unsigned c = CLASSES; c >= 1; c--)
        if (peek(&classes[c].candidates)) purge_class(&classes[c], partly);
}

void slab_purge_if_due(bool at_rest) {
    lean_purge p;
    if (!lean_purge_begin(&p, at_rest)) return;
    purge(p.kept);
    lean_purge_end(&p);
}

/* ---- refill ---- */

/* A page that was given back is about to be taken again: what is free on it bears its stamp anew. It must be as it was left, gone or with the stamps
 * (MADV_FREE): else somebody wrote to it meanwhile, who was given a block by a second free. Nobody did if it is the kernel's page of zeros, which
 * was only read, nor if the kernel may have filled it by itself, as it does for huge pages; with Lean it may not. */
static void stamp_again(unit *s, unsigned page) {
    const class_info *c = &hak_class[s->cls];
    const uint64_t *bits = unit_bits(s, c->count);
    char *base = unit_address(unit_number(s));
    unsigned i = (unsigned)div_up((size_t)page << hak_page_shift, c->size),
             end = (unsigned)div_up((size_t)(page + 1) << hak_page_shift, c->size);
    if (end > s->carved) end = s->carved;
    if (i >= end) return;
    if (!(s->gone >> page & 1)) s->gone = os_gone_pages(base) & (uint16_t)~s->resident;
    bool gone = s->gone >> page & 1;
    for (; i < end; i++) {
        block *b = (block *)(base + (size_t)i * c->size);
        if (!(bits[i / 64] >> (i % 64) & 1)) continue;
        if (!gone && b->mac != block_stamp() && (b->mac || b->next || (ss_mem_lean_enabled() && os_is_written(b))))
            misuse_bad_words(b, s->cls);
        block_into_slab(b);
    }
}

/* Bytes [from, to) of a slab are about to be used. */
static void take_pages(unit *s, size_t from, size_t to) {
    uint16_t gone = unit_pages(from, to) & (uint16_t)~s->resident;
    for (uint16_t left = HAK_CHECKS ? gone : 0; left; left &= (uint16_t)(left - 1)) stamp_again(s, (unsigned)__builtin_ctz(left));
    s->gone &= (uint16_t)~gone;
    unit_mark_resident(s, from, to);
    s->bare = 0;
}

static void take_pages_of(unit *s, unsigned word, uint64_t mask) {
    size_t size = hak_class[s->cls].size;
    for (; mask; mask &= mask - 1) {
        size_t at = (word * 64 + (unsigned)__builtin_ctzll(mask)) * size;
        take_pages(s, at, at + size);
    }
}

static bool all_carved_resident(const unit *s) {
    size_t carved = (size_t)s->carved * hak_class[s->cls].size;
    return !carved || !(unit_pages(0, carved) & (uint16_t)~s->resident);
}

static uint64_t on_resident_pages(const unit *s, unsigned word, uint64_t mask) {
    size_t size = hak_class[s->cls].size;
    for (uint64_t left = mask; left; left &= left - 1) {
        unsigned bit = (unsigned)__builtin_ctzll(left);
        size_t at = (word * 64 + bit) * size;
        if (unit_pages(at, at + size) & (uint16_t)~s->resident) mask &= ~((uint64_t)1 << bit);
    }
    return mask;
}

/* Take up to `want` freed blocks, from resident pages only or from any; returns how many. */
static unsigned take_freed(unit *s, unsigned want, bool resident, group *g, unsigned *groups) {
    const class_info *c = &hak_class[s->cls];
    uint64_t *bits = unit_bits(s, c->count);
    bool all_resident = all_carved_resident(s), left_some = false;
    unsigned got = 0, w = s->hint, words = (unsigned)div_up(c->count, 64);
    for (; w < words && got < want && *groups < GROUPS && s->nfree; w++) {
        uint64_t mask = bits[w];
        if (mask && resident && !all_resident && (mask = on_resident_pages(s, w, mask)) != bits[w]) left_some = true;
        if (!mask) continue;
        unsigned n = count_ones(mask);
        while (n > want - got) mask &= ~((uint64_t)1 << (63 - __builtin_clzll(mask))), n--;
        if (!all_resident && !resident) take_pages_of(s, w, mask & ~on_resident_pages(s, w, mask));
        poke(&bits[w], bits[w] & ~mask);
        s->nfree -= n;
        got += n;
        g[(*groups)++] = (group){s, w, false, mask};
        if (got == want) break;
    }
    if (left_some) {
        s->bare = !got;
        return got;
    }
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
    if (upto > s->carved) take_pages(s, from, (size_t)upto * c->size);
    while (s->carved < upto && *groups < GROUPS) {
        unsigned w = s->carved / 64, bit = s->carved % 64, n = upto - s->carved;
        if (n > 64 - bit) n = 64 - bit;
        g[(*groups)++] = (group){s, w, true, bits64(n) << bit};
        poke(&s->carved, s->carved + n);
        got += n;
    }
    return got;
}

static chain link_blocks(const group *g, unsigned groups, unsigned cls, uintptr_t key) {
    size_t size = hak_class[cls].size;
    chain out = {LIST_END, key, 0};
    for (unsigned i = groups; i-- > 0;) { /* backwards, so that the chain mostly runs in address order */
        char *base = unit_address(unit_number(g[i].slab)) + (size_t)g[i].word * 64 * size;
        for (uint64_t m = g[i].mask; m; out.count++) {
            unsigned bit = 63 - (unsigned)__builtin_clzll(m);
            m &= ~((uint64_t)1 << bit);
            block *b = (block *)(base + bit * size);
            /* Or it was written to after it was freed, or freed twice and perhaps handed out between. */
            if (HAK_CHECKS && !g[i].fresh && b->mac != block_stamp()) misuse_bad_words(b, cls);
            block_link(b, out.head, key);
            out.head = b;
        }
    }
    return out;
}

static void make_current(slab_heap *h, slab_class *k, unit *s) {
    unit *was = h->current[s->cls];
    if (s->listed) unlist_slab(k, s);
    if (s->owner != h) s->gone = 0;
    s->owner = h;
    h->current[s->cls] = s;
    if (!was || was == s) return;
    was->owner = NULL;
    if (in_slab(was)) list_slab(k, was);
}

static bool is_promising(const unit *s) { return s->nfree && !s->bare; }

/* Above the target no page is taken again while there are free blocks on resident ones, and of these the lowest go first: so blocks gather there, and pages
 * above run empty. Looks at the current slab and a few others. */
static unsigned take_sparingly(slab_heap *h, slab_class *k, unsigned cls, unsigned want, group *g, unsigned *groups) {
    for (unit *tried = NULL, *s;; tried = s) {
        unsigned looked = 0;
        unit *own = h->current[cls];
        s = own && is_promising(own) && own > tried ? own : NULL;
        for (unit *o = k->partial; o && looked++ < SLABS_LOOKED_AT; o = o->next)
            if (is_promising(o) && o > tried && (!s || o < s)) s = o;
        if (!s) return 0;
        unsigned n = take_freed(s, want, true, g, groups);
        if (!n) continue;
        make_current(h, k, s);
        unit_tell(s);
        return n;
    }
}

chain slab_refill(slab_heap *h, unsigned cls, const slab_route *decided, uintptr_t key) {
    slab_route r = decided ? *decided : slab_decide(cls);
    slab_class *k = &classes[cls];
    group g[GROUPS];
    unsigned groups = 0, got = 0;
    lock(&k->lock);
    while (got < r.batch && groups < GROUPS) {
        unit *s = h->current[cls];
        if (!s && (s = k->partial)) {
            if (got) break; /* enough: leave other slabs alone */
            STAT(refill_partial);
        } else if (!s && (got || !(s = new_slab(h, cls)))) {
            break;
        }
        make_current(h, k, s);
        unsigned n = take_freed(s, r.batch - got, false, g, &groups);
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
    chain out = link_blocks(g, groups, cls, key);
    stat_octave(hak_class[cls].octave, OCT_TAKEN, out.count);
    if (decided ? r.lean : lean_releases()) slab_purge_if_due(false);
    return out;
}

chain slab_refill_sparingly(slab_heap *h, unsigned cls, uintptr_t key) {
    slab_class *k = &classes[cls];
    group g[GROUPS];
    unsigned groups = 0;
    lock(&k->lock);
    unsigned n = take_sparingly(h, k, cls, slab_decide(cls).batch, g, &groups);
    unlock(&k->lock);
    if (!n) return (chain){0};
    chain out = link_blocks(g, groups, cls, key);
    stat_octave(hak_class[cls].octave, OCT_TAKEN, n);
    slab_purge_if_due(false);
    return out;
}

/* ---- flush ---- */

/* Where a block stands; ends the program for what is not a block of this class. */
static unit *locate(const block *b, unsigned cls, unsigned *index) {
    const class_info *c = &hak_class[cls];
    if (!in_arena(b) || unit_of(b) >= units_known()) hak_fatal("corrupted free list", b, c->size);
    unit *s = unit_record(unit_of(b));
    if (s->state != UNIT_SLAB || s->cls != cls) hak_fatal("double free", b, c->size);
    *index = class_block_at(c, (uintptr_t)b & UNIT_MASK);
    if (*index == c->count) hak_fatal("invalid free (interior pointer)", b, c->size);
    return s;
}

/* Group the next blocks of a chain by (slab, word), outside any lock. */
static unsigned gather(chain *c, unsigned cls, group *g) {
    unsigned groups = 0;
    while (c->count) {
        block *b = c->head;
        if (HAK_CHECKS && !misuse_on_list(b, c->key)) misuse_bad_link(b, cls);
        unsigned i, j;
        unit *s = locate(b, cls, &i);
        for (j = groups; j-- > 0;)
            if (g[j].slab == s && g[j].word == i / 64) break;
        if (j == UINT32_MAX) {
            if (groups == GROUPS) return groups;
            g[j = groups++] = (group){.slab = s, .word = i / 64};
        }
        uint64_t bit = (uint64_t)1 << (i % 64);
        if (g[j].mask & bit) hak_fatal("double free", b, hak_class[cls].size);
        g[j].mask |= bit;
        c->head = b->next;
        c->count--;
        block_into_slab(b);
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
    s->bare = 0;
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
        lean_freed((size_t)total * hak_class[cls].size);
        slab_purge_if_due(false);
    }
}

void slab_drain_depot(void) {
    for (unsigned cls = 1; cls <= CLASSES; cls++)
        for (chain c; depot_get(cls, &c);) slab_flush(NULL, cls, c);
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

COLD void slab_trim(void) {
    slab_drain_depot();
    slab_lock_all();
    for (size_t u = 0; u < units_known(); u++)
        if (unit_record(u)->state == UNIT_SLAB) make_candidate(&classes[unit_record(u)->cls], unit_record(u));
    slab_unlock_all();
    purge(true);
}
