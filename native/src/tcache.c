#include "tcache.h"

#include "background.h"
#include "diag.h"
#include "gates.h"
#include "heap.h"
#include "large.h"
#include "misuse.h"
#include "stats.h"

#include <string.h>

#if HAK_CHECKS
_Thread_local tcache hak_tls = {.head = {[0 ... CLASSES] = &hak_sentinel}};
#else
_Thread_local tcache hak_tls;
#endif

static pthread_key_t exit_key;
static bool exit_key_made;
static _Thread_local bool left; /* its destructor ran, and may have been the last: libc still frees after all of them */

/* ---- threads come and go ---- */

static void set_list(const heap *h, unsigned c, chain to) {
    hak_tls.head[c] = to.head;
    hak_tls.room[c] = h->cap[c] - (int32_t)to.count;
#if HAK_CHECKS
    hak_tls.key[c] = to.key;
#endif
}

static chain hot_list(const heap *h, unsigned c) {
    chain out = {.head = hak_tls.head[c], .count = (unsigned)(h->cap[c] - hak_tls.room[c])};
#if HAK_CHECKS
    out.key = hak_tls.key[c];
#endif
    return out;
}

static bool holds(const heap *h, const block *b, unsigned c) {
    const chain hot = hot_list(h, c);
    return chain_holds(&hot, b) || chain_holds(&h->spare[c], b);
}

static void decide_caps(heap *h) {
    h->pressure = lean_pressure();
    for (unsigned c = 1; c <= CLASSES; c++) h->cap[c] = (int16_t)slab_cap(c, h->pressure);
}

/* NULL: no memory for it; the caller does without. */
static heap *join(void) {
    heap *h = hak_tls.heap;
    if (likely(h != NULL)) return h;
    if (!(h = heap_new(&hak_tls))) return NULL;
    decide_caps(h);
    for (unsigned c = 0; c <= CLASSES; c++) set_list(h, c, (chain){LIST_END, heap_new_key(h), 0});
    left = false;
    ss_join();
    stats_register(&h->stats);
    STAT(threads);
    if (exit_key_made) (void)pthread_setspecific(exit_key, h); /* may allocate: the thread is ready by now */
    return h;
}

/* A thread that has left and only frees does without, or each would leave a heap behind that no destructor ends. */
static heap *join_to_free(void) { return left ? NULL : join(); }

/* What others took from the list is no longer on it. */
static void settle(heap *h, unsigned c) {
    hak_tls.room[c] += h->taken[c];
    h->cap[c] += (int16_t)h->taken[c];
    h->taken[c] = 0;
}

static chain take_hot(heap *h, unsigned c) {
    settle(h, c);
    chain out = hot_list(h, c);
    set_list(h, c, (chain){LIST_END, out.head == LIST_END ? out.key : heap_new_key(h), 0});
    return out;
}

static void push(const heap *h, block *p, unsigned c) {
    chain hot = hot_list(h, c);
    block_link(p, hot.head, hot.key);
    hak_listed();
    set_list(h, c, (chain){p, hot.key, hot.count + 1});
}

/* A block on its way to a list or back to its slab must not be on a list. h NULL: the thread has none. */
static void check_not_listed(const heap *h, const block *p, unsigned c) {
    if (!HAK_CHECKS) return;
    bool first = p == hak_tls.head[c]; /* whatever was written to it since */
    if (first || (block_looks_free(p) && (misuse_is_free(p, c) || (h && holds(h, p, c)))))
        hak_fatal("double free", p, hak_class[c].size);
}

static void drain(heap *h) {
    for (unsigned c = 1; c <= CLASSES; c++) {
        chain hot = take_hot(h, c), spare = h->spare[c];
        h->spare[c] = (chain){0};
        if (hot.count) slab_flush(&h->slabs, c, hot);
        if (spare.count) slab_flush(&h->slabs, c, spare);
    }
}

void tcache_drain(void) {
    heap *h = hak_tls.heap;
    if (!h) return;
    heap_enter(h);
    drain(h);
    heap_leave(h);
}

static void leave(void *arg) {
    heap *h = arg;
    if (hak_tls.heap != h) return;
    tcache_drain();
    slab_abandon(&h->slabs);
    ss_leave();
    for (unsigned c = 0; c <= CLASSES; c++) hak_tls.room[c] = 0;
    heap_end(h);
    left = true;
}

void tcache_init(void) { exit_key_made = pthread_key_create(&exit_key, leave) == 0; }

/* ---- slow ways ---- */

/* Caches shrink when the process passes its target, and grow again when it is well below. */
static void follow_pressure(heap *h) {
    if (likely(h->pressure == lean_pressure())) return;
    drain(h);
    decide_caps(h);
    for (unsigned c = 1; c <= CLASSES; c++) hak_tls.room[c] = h->cap[c];
}

static bool fetch(heap *h, unsigned cls, bool sparingly, chain *out) {
    h->missed[cls] = true;
    if (h->spare[cls].count) {
        *out = h->spare[cls];
        h->spare[cls] = (chain){0};
        STAT(refill_spare);
        return true;
    }
    if (depot_get(cls, out)) {
        STAT(refill_depot);
        return true;
    }
    uintptr_t key = hot_list(h, cls).key;
    if (sparingly) {
        *out = slab_refill_sparingly(&h->slabs, cls, key);
    } else {
        slab_route r;
        bool ssot = gate(G_ALLOC_PASSDOWN_SSOT);
        if (ssot) r = slab_decide(cls);
        *out = slab_refill(&h->slabs, cls, ssot ? &r : NULL, key);
    }
    if (out->count) STAT(refill_slab);
    return out->count > 0;
}

static void *pop(unsigned c) {
    block *p = hak_tls.head[c];
#if HAK_CHECKS
    if (!misuse_on_list(p, hak_tls.key[c])) misuse_bad_link(p, c);
    p->mac = 0;
#endif
    hak_tls.head[c] = p->next;
    hak_tls.room[c]++;
    return p;
}

/* Whether the hot list has a block now. */
static bool refill(heap *h, unsigned cls, bool sparingly) {
    settle(h, cls);
    if (hak_tls.head[cls] != LIST_END) return true; /* joining may have allocated and refilled it; others may have marked it */
    chain c;
    if (!fetch(h, cls, sparingly, &c)) return false;
    STAT_N(tls_sll, c.count);
    set_list(h, cls, c);
    return true;
}

/* Above the target a block of a class that is a little larger will do, rather than a page that was given back: what is free in one class serves the
 * others, which do not all have their peak at once. */
static unsigned refill_sparingly(heap *h, unsigned cls, bool exact) {
    for (unsigned c = cls; c <= (exact ? cls : CLASSES) && policy_may_serve(hak_class[cls].size, hak_class[c].size); c++) {
        if (!refill(h, c, true)) continue;
        if (c != cls) STAT(refill_larger);
        return c;
    }
    return 0;
}

static void *refill_and_pop(heap *h, unsigned cls, bool exact) {
    follow_pressure(h);
    unsigned c = h->pressure == PRESSURE_HIGH ? refill_sparingly(h, cls, exact) : 0;
    if (!c && refill(h, cls, false)) c = cls;
    return c ? pop(c) : NULL;
}

NOINLINE void *tcache_malloc_slow(size_t cls, bool exact) {
    heap *h = join();
    if (!h) return NULL;
    heap_enter(h);
    void *p = refill_and_pop(h, (unsigned)cls, exact);
    heap_leave(h);
    heap_take_idle(h);
    background_resume();
    return p;
}

/* The hot list is full: it moves behind, and what was there goes into the depot or back to its slabs. The list's room doubles where it is both filled and
 * emptied, or others take its chains; where the thread only frees it halves, so that what is flushed was freed a moment ago and is still in
 * the processor's caches. */
static void overflow(heap *h, unsigned c) {
    STAT(overflow);
    chain out = take_hot(h, c);
    STAT_N(tls_sll, out.count);
    if (gate(G_TINY_MAG_LEVELS) == LEVELS_2 && h->pressure != PRESSURE_HIGH) {
        chain full = out;
        out = h->spare[c];
        h->spare[c] = full;
    }
    bool used = h->missed[c];
    if (out.count && depot_put(c, out)) used = true;
    else if (out.count) slab_flush(&h->slabs, c, out);
    if (h->pressure != PRESSURE_HIGH) {
        h->cap[c] = (int16_t)policy_adapt((unsigned)h->cap[c], slab_cap(c, PRESSURE_LEAN), slab_cap(c, PRESSURE_NONE), used);
        hak_tls.room[c] = h->cap[c];
    }
    h->missed[c] = false;
    follow_pressure(h);
}

static void keep(heap *h, block *p, unsigned c) {
    settle(h, c);
    check_not_listed(h, p, c);
    if (hak_tls.room[c] <= 0) overflow(h, c); /* before: the blocks freed last stay at hand */
    push(h, p, c);
}

static void give_back(heap *h, block *p, unsigned c) {
    check_not_listed(h, p, c);
    block_link(p, LIST_END, hak_secret);
    slab_flush(h ? &h->slabs : NULL, c, (chain){p, hak_secret, 1});
}

/* Class of a block that free knows nothing of; 0: it was a large one, and is gone. */
static unsigned class_of_unknown(block *p) {
    if (!in_arena(p)) misuse_bad_free(p);
    size_t u = unit_of(p);
    if (u >= units_known() || unit_record(u)->state != UNIT_SLAB) {
        if (!large_free(p)) misuse_bad_free(p);
        return 0;
    }
    /* A slab whose blocks threads may not keep now. */
    misuse_check_live(p, "double free");
    return unit_record(u)->cls;
}

/* Class 0, a full list, or a second free of what is first on it. */
NOINLINE void hak_free_slow(block *p, size_t cls) {
    if (!p) return;
    unsigned c = (unsigned)cls;
    if (c) hak_tls.room[c]++; /* free counted p in, who is on no list */
    else hak_tls.room[0] = 0;
    if (!c && !(c = class_of_unknown(p))) return;
    heap *h = join_to_free();
    if (!h) {
        give_back(NULL, p, c);
        return;
    }
    heap_enter(h);
    if (slab_cached(c)) {
        keep(h, p, c);
    } else {
        follow_pressure(h);
        give_back(h, p, c);
    }
    heap_leave(h);
    heap_take_idle(h);
    background_resume();
}

bool tcache_holds(const block *b, unsigned cls) {
    heap *h = hak_tls.heap;
    if (!h) return false;
    heap_enter(h);
    bool found = holds(h, b, cls);
    heap_leave(h);
    return found;
}

/* A thread that freed something at its very end is not known to have ended, and its state may be gone: so it is read as a
 * debugger would, and must name its heap. What another thread counts may be late by the call it is in. */
COLD bool tcache_blocks(size_t blocks[CLASSES + 1]) {
    tcache t;
    bool told = os_read_memory(&t, &hak_tls, sizeof t) == OS_READ;
    heap_lock_all();
    for (const heap *h = hak_heaps; h; h = h->made) {
        if (!h->tls || os_read_memory(&t, h->tls, sizeof t) != OS_READ || t.heap != h) continue;
        for (unsigned c = 1; c <= CLASSES; c++) {
            int32_t hot = h->cap[c] - t.room[c];
            blocks[c] += (hot > 0 ? (unsigned)hot : 0) + h->spare[c].count;
        }
    }
    heap_unlock_all();
    return told;
}

COLD tcache_layout tcache_where(void) {
    return (tcache_layout){
        .made = &hak_heaps,
        .next = offsetof(heap, made),
        .tls = offsetof(heap, tls),
        .cap = offsetof(heap, cap),
        .spare = offsetof(heap, spare) + offsetof(chain, count),
        .spare_step = sizeof(chain),
        .room = offsetof(tcache, room),
        .heap = offsetof(tcache, heap),
    };
}

size_t tcache_bytes(void) {
    size_t bytes = 0;
    for (unsigned c = 1; c <= CLASSES; c++)
        if (hak_tls.heap) bytes += (size_t)(hak_tls.heap->cap[c] - hak_tls.room[c]) * hak_class[c].size;
    return bytes;
}
