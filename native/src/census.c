#include "census.h"

#include "depot.h"
#include "diag.h"
#include "gates.h"
#include "live.h"
#include "slab.h"
#include "stats.h"
#include "superslab.h"
#include "tcache.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    size_t slabs, out, freed, resident, cached; /* freed: blocks that came back; cached: in threads' caches and the depot */
} class_count;

typedef struct {
    class_count cls[CLASSES + 1];
    bool cached_known;
    size_t warm_slabs, warm_resident;   /* in use, but no slab yet */
    size_t free_units, free_resident;   /* of SuperSlabs in use */
    size_t kept, kept_resident, clean;  /* SuperSlabs that are empty: resident, decommitted */
    size_t in_use, runs, run_bytes, run_resident, spans, span_superslabs, span_bytes, span_resident;
} census;

static size_t resident_of(const unit *r) { return (size_t)count_ones(r->resident) << hak_page_shift; }

static void count_unit(census *n, const unit *r, bool used) {
    size_t bytes = resident_of(r);
    if (!used) {
        n->free_units++;
        n->free_resident += bytes;
    } else if (r->state == UNIT_SLAB) {
        class_count *k = &n->cls[r->cls];
        k->slabs++;
        k->out += r->carved - r->nfree;
        k->freed += r->nfree;
        k->resident += bytes;
    } else if (r->state == UNIT_RUN || r->state == UNIT_RUN_TAIL) {
        n->run_resident += bytes;
        n->runs += r->state == UNIT_RUN;
        if (r->state == UNIT_RUN) n->run_bytes += (size_t)r->run_units * UNIT_SIZE - r->run_slack;
    } else {
        n->warm_slabs++;
        n->warm_resident += bytes;
    }
}

static void count_superslab(census *n, size_t first) {
    const SuperSlab *ss = ss_of_unit(first);
    n->in_use += ss->kind == SS_UNITS;
    n->kept += ss->kind == SS_DIRTY;
    n->clean += ss->kind == SS_CLEAN;
    n->spans += ss->kind == SS_SPAN;
    n->span_superslabs += ss->kind == SS_SPAN || ss->kind == SS_TAIL;
    if (ss->kind == SS_SPAN) n->span_bytes += ss->bytes;
    for (unsigned u = 0; u < ss_units; u++) {
        const unit *r = unit_record(first + u);
        if (ss->kind == SS_UNITS) count_unit(n, r, ss->used >> u & 1);
        else if (ss->kind == SS_DIRTY) n->kept_resident += resident_of(r);
        else if (ss->kind == SS_SPAN || ss->kind == SS_TAIL) n->span_resident += resident_of(r);
    }
}

static void count_all(census *n) {
    slab_lock_all();
    ss_lock_all();
    for (size_t u = 0; u < units_known(); u += ss_units) count_superslab(n, u);
    ss_unlock_all();
    slab_unlock_all();
}

COLD size_t census_live_bytes(void) {
    census n = {0};
    count_all(&n);
    size_t live = n.run_bytes + n.span_bytes;
    for (unsigned c = 1; c <= CLASSES; c++) live += n.cls[c].out * hak_class[c].size;
    return live;
}

static const block *without_stamp(unit *s) {
    const class_info *c = &hak_class[s->cls];
    const uint64_t *bits = unit_bits(s, c->count);
    for (unsigned i = 0; HAK_CHECKS && i < s->carved; i++) {
        size_t at = (size_t)i * c->size;
        const block *b = (const block *)(unit_address(unit_number(s)) + at);
        if ((bits[i / 64] >> (i % 64) & 1) && (s->resident & unit_pages(at, at + 1)) && b->mac != block_stamp()) return b;
    }
    return NULL;
}

static bool is_sound(size_t u) {
    unit *s = unit_record(u);
    if (s->state != UNIT_SLAB) return true;
    const class_info *c = &hak_class[s->cls];
    const block *bad = without_stamp(s);
    if (bad) {
        hak_msg("block %p of class %u is free in its slab and bears no stamp: it was written to, or freed twice", (const void *)bad,
                s->cls);
        return false;
    }
    unsigned set = 0;
    for (unsigned w = 0; w < div_up(c->count, 64); w++) set += count_ones(unit_bits(s, c->count)[w]);
    bool some = s->nfree || s->carved < c->count;
    if (set == s->nfree && s->carved <= c->count && s->nfree <= s->carved && s->listed == (!s->owner && some) &&
        (hak_unit_class[u] == s->cls || hak_unit_class[u] == 0) && (ss_of_unit(u)->used >> (u % ss_units) & 1))
        return true;
    hak_msg("slab %zu breaks an invariant: class %u, free %u of bits %u, carved %u", u, s->cls, s->nfree, set, s->carved);
    return false;
}

COLD bool census_check(void) {
    bool ok = true;
    slab_lock_all();
    ss_lock_all();
    for (size_t u = 0; u < units_known() && ok; u++) ok = is_sound(u);
    ss_unlock_all();
    slab_unlock_all();
    return ok;
}

#if HAK_STATS_ON

static void take(census *n) {
    size_t cached[CLASSES + 1] = {0};
    *n = (census){.cached_known = tcache_blocks(cached)};
    for (unsigned c = 1; c <= CLASSES; c++) n->cls[c].cached = cached[c] + depot_blocks(c);
    count_all(n);
}

#define PUT(...) n += (size_t)snprintf(n < size ? buf + n : NULL, n < size ? size - n : 0, __VA_ARGS__)

static size_t classes_json(const census *t, char *buf, size_t size) {
    size_t n = 0;
    for (unsigned c = 1; c <= CLASSES; c++) {
        const class_count *k = &t->cls[c];
        size_t bytes = hak_class[c].size, live = k->out > k->cached ? k->out - k->cached : 0;
        if (!k->slabs && !k->out) continue;
        PUT("%s{\"class\":%u,\"size\":%zu,\"octave\":%u,\"slabs\":%zu,\"blocks_out\":%zu,\"blocks_free\":%zu,\"bytes_resident\":%"
            "zu",
            n ? "," : "", c, bytes, hak_class[c].octave, k->slabs, k->out, k->freed, k->resident);
        if (t->cached_known)
            PUT(",\"blocks_cached\":%zu,\"blocks_live\":%zu,\"bytes_cached\":%zu,\"bytes_live\":%zu", k->cached, live,
                k->cached * bytes, live * bytes);
        PUT("}");
    }
    return n;
}

/* Ranges of one name are one entry; what is resident the kernel tells. */
static size_t metadata_json(char *buf, size_t size) {
    const os_meta_table *t = hak_os_meta;
    size_t n = 0;
    for (uint64_t i = 0; i < t->count; i++) {
        size_t bytes = 0, resident = 0, first = 0;
        for (uint64_t j = 0; j < t->count; j++) {
            if (strcmp(t->range[i].name, t->range[j].name)) continue;
            if (!first) first = j + 1;
            size_t here = os_resident_in((const void *)(uintptr_t)t->range[j].at, t->range[j].bytes);
            bytes += t->range[j].bytes;
            resident += here == SIZE_MAX ? 0 : here;
        }
        if (first == i + 1) PUT("%s\"%s\":{\"bytes\":%zu,\"resident\":%zu}", n ? "," : "", t->range[i].name, bytes, resident);
    }
    return n;
}

static size_t map_json(char *buf, size_t size) {
    size_t n = 0;
    PUT("[");
    slab_lock_all();
    ss_lock_all();
    for (size_t u = 0; u < units_known(); u += ss_units) {
        const SuperSlab *ss = ss_of_unit(u);
        if (ss->kind == SS_NONE) continue;
        uint64_t word[LIVE_HEAD];
        ss_words(ss, word);
        PUT("%s[%zu", n > 1 ? "," : "", u / ss_units);
        for (unsigned k = 0; k < LIVE_HEAD; k++) PUT(",%llu", (unsigned long long)word[k]);
        for (unsigned k = 0; k < ss_units; k++) PUT(",%llu", (unsigned long long)unit_word(unit_record(u + k)));
        PUT("]");
    }
    ss_unlock_all();
    slab_unlock_all();
    PUT("]");
    return n;
}

COLD size_t census_json(char *buf, size_t size) {
    census t;
    size_t n = 0;
    take(&t);
#define REST n < size ? buf + n : NULL, n < size ? size - n : 0
    PUT("{\"page\":%zu,\"superslab\":%zu,\"arena\":%llu,\"classes\":[", (size_t)1 << hak_page_shift, ss_bytes(),
        (unsigned long long)hak_arena_base);
    n += classes_json(&t, REST);
    PUT("],\"metadata\":{");
    n += metadata_json(REST);
    PUT("},\"warm_pool\":{\"slabs\":%zu,\"resident\":%zu},\"free_slabs\":{\"slabs\":%zu,\"resident\":%zu}", t.warm_slabs,
        t.warm_resident, t.free_units, t.free_resident);
    PUT(",\"large\":{\"blocks\":%zu,\"bytes\":%zu,\"resident\":%zu}", t.runs, t.run_bytes, t.run_resident);
    PUT(",\"direct\":{\"blocks\":%zu,\"superslabs\":%zu,\"bytes\":%zu,\"resident\":%zu}", t.spans, t.span_superslabs, t.span_bytes,
        t.span_resident);
    PUT(",\"superslabs\":{\"in_use\":%zu,\"kept\":%zu,\"kept_resident\":%zu,\"decommitted\":%zu},\"map\":", t.in_use, t.kept,
        t.kept_resident, t.clean);
    n += map_json(REST);
    PUT("}");
    return n;
}

/* What a reader needs to know of this process and this build; it looks at offsets, never at a layout of its own. */
static void describe(char *buf, size_t size) {
    static const char *const kinds[OCT_KINDS] = {HAK_OCT_KINDS};
    const tcache_layout t = tcache_where();
    const depot_layout d = depot_where();
    size_t n = 0;
    PUT("{\"hakmem_live\":1,\"version\":\"" HAK_VERSION "\",\"build\":\"" HAK_BUILD_NAME
        "\",\"pid\":%ld,\"start\":%llu,\"page\":%zu,",
        (long)getpid(), (unsigned long long)live_start_ticks(), (size_t)1 << hak_page_shift);
    PUT("\"arena\":%llu,\"unit\":%zu,\"superslab_units\":%u,\"gates\":", (unsigned long long)hak_arena_base, UNIT_SIZE, ss_units);
    n += gates_json(REST);
    PUT(",\"sizes\":[0");
    for (unsigned c = 1; c <= CLASSES; c++) PUT(",%u", hak_class[c].size);
    PUT("],\"octaves\":[0");
    for (unsigned c = 1; c <= CLASSES; c++) PUT(",%u", hak_class[c].octave);
    PUT("],\"counters\":[");
    for (int i = 0; i < ST_COUNT; i++) PUT("%s\"%s\"", i ? "," : "", hak_counter_names[i]);
    for (int c = 0; c < OCTAVES; c++)
        for (int k = 0; k < OCT_KINDS; k++) PUT(",\"c%d_%s\"", c, kinds[k]);
    PUT("],\"at\":{\"known\":%zu,\"shown\":%zu,\"moving\":%zu,\"metadata\":%zu,\"counts\":%zu,\"first_count\":%zu,\"words\":%zu}",
        offsetof(live_page, known), offsetof(live_page, shown), offsetof(live_page, moving), offsetof(live_page, meta),
        offsetof(live_page, counts), offsetof(stats_block, n), offsetof(live_page, words));
    PUT(",\"count_bytes\":%zu,\"count_blocks\":%d,\"head_words\":%d,", sizeof(stats_block), LIVE_SLOTS, LIVE_HEAD);
    PUT("\"caches\":{\"made\":%llu,\"next\":%zu,\"tls\":%zu,\"cap\":%zu,\"spare\":%zu,\"spare_step\":%zu,",
        (unsigned long long)(uintptr_t)t.made, t.next, t.tls, t.cap, t.spare, t.spare_step);
    PUT("\"room\":%zu,\"heap\":%zu},", t.room, t.heap);
    PUT("\"depot\":{\"counts\":%llu,\"chains\":%llu,\"step\":%zu,\"chain_step\":%zu}}\n", (unsigned long long)(uintptr_t)d.counts,
        (unsigned long long)(uintptr_t)d.chains, d.step, d.chain_step);
    _Static_assert(sizeof(((live_page *)0)->text) >= 8192 + GATE_TEXT_MAX * 2, "the longest paths leave room for the rest");
}

COLD bool census_show(const char *folder) {
    if (!live_start(folder, ss_units)) return false;
    slab_lock_all();
    ss_lock_all();
    ss_tell_all();
    ss_unlock_all();
    slab_unlock_all();
    describe(hak_live->text, sizeof hak_live->text);
    live_publish();
    return true;
}

COLD void census_forked(void) {
    if (!live_forked()) return;
    ss_tell_all(); /* the copy may hold what the parent has changed since */
    describe(hak_live->text, sizeof hak_live->text);
    live_publish();
}

#else
size_t census_json(char *buf, size_t size) {
    (void)buf, (void)size;
    return 0;
}
bool census_show(const char *folder) {
    (void)folder;
    return false;
}
void census_forked(void) {}
#endif
