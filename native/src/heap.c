#include "heap.h"

#include "gates.h"
#include "misuse.h"
#include "os.h"

#include <string.h>

#define HEAPS_PER_STEP 8
heap *hak_heaps;
static heap *unused, *fresh;
static size_t fresh_left, count;
static hak_lock heaps_lock = HAK_LOCK_INIT;
static uint64_t looked, pause_ns; /* at idle ones: when last, and how long until the next time */

void heap_lock_all(void) {
    lock(&heaps_lock);
    for (heap *h = hak_heaps; h; h = h->made)
        if (h->tls) heap_enter(h);
}
void heap_unlock_all(void) {
    for (heap *h = hak_heaps; h; h = h->made)
        if (h->tls && lean_releases()) {
            (void)pthread_mutex_trylock(&h->lock); /* one made since, in another library's handler, is not held */
            unlock(&h->lock);
        }
    unlock(&heaps_lock);
}

size_t heap_count(void) { return peek(&count); }

static heap *make(void) {
    size_t bytes = round_up(HEAPS_PER_STEP * sizeof(heap), (size_t)1 << hak_page_shift);
    if (!fresh_left && (fresh = os_metadata(bytes, "thread heaps")) && os_commit(fresh, bytes)) fresh_left = HEAPS_PER_STEP;
    if (!fresh_left) return NULL;
    fresh_left--;
    poke(&count, count + 1);
    fresh->number = (uint16_t)count;
    poke(&hak_last_heap, count < UINT16_MAX ? count : UINT16_MAX);
    fresh->made = hak_heaps;
    return hak_heaps = fresh++;
}

heap *heap_new(struct hak_tls *tls) {
    lock(&heaps_lock);
    heap *h = unused;
    if (h) unused = h->next;
    else h = make();
    if (h) {
        memset(h, 0, offsetof(heap, made));
        h->lock = (hak_lock)HAK_LOCK_INIT;
        h->tls = tls;
        tls->heap = h;
    }
    unlock(&heaps_lock);
    return h;
}

void heap_end(heap *h) {
    stats_unregister(&h->stats);
    lock(&heaps_lock);
    h->tls->heap = NULL;
    h->tls = NULL;
    h->next = unused;
    unused = h;
    unlock(&heaps_lock);
}

/* ---- what idle threads hold ---- */

static chain back[2 * CLASSES + 1]; /* of one heap: [c] from its hot list, [CLASSES + c] from behind it; under heaps_lock */

#if HAK_CHECKS
typedef struct {
    block *first, *second, *rest;
    uintptr_t key;
} cut;

/* While the SuperSlabs are locked the block's memory stays; nothing else is known about it. */
UNSEEN static bool is_a_block(const block *b, unsigned c) {
    size_t u = unit_of(b);
    if (!in_arena(b) || u >= units_known()) return false;
    const unit *s = unit_record(u);
    return peek(&s->state) == UNIT_SLAB && peek(&s->cls) == c &&
           class_block_at(&hak_class[c], (uintptr_t)b & UNIT_MASK) < hak_class[c].count;
}

/* The block behind b on a list; NULL: b is not on it. */
UNSEEN static block *behind(const block *b, unsigned c, uintptr_t key) {
    if (!is_a_block(b, c)) return NULL;
    block *next = peek(&b->next);
    return peek(&b->mac) == (key ^ (uintptr_t)next) ? next : NULL;
}

/* A block that is live meanwhile does not hold `from`: malloc clears the word. */
UNSEEN static bool change(block *b, unsigned c, uintptr_t from, uintptr_t to) {
    return is_a_block(b, c) && __atomic_compare_exchange_n(&b->mac, &from, to, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static bool begin_cut(cut *k, const struct hak_tls *lists, unsigned c) {
    ss_lock_all();
    *k = (cut){.first = lists->head[c], .key = lists->key[c]};
    k->second = behind(k->first, c, k->key);
    if (k->second && k->second != LIST_END) k->rest = behind(k->second, c, k->key);
    bool ok = k->rest && k->rest != LIST_END && change(k->second, c, k->key ^ (uintptr_t)k->rest, misuse_mark_of(k->rest, k->key));
    ss_unlock_all();
    return ok;
}

/* After the barrier; `first` is where the list begins now. */
UNSEEN static bool end_cut(const cut *k, const block *first, unsigned c) {
    ss_lock_all();
    uintptr_t mark = misuse_mark_of(k->rest, k->key);
    bool ok = first == k->first && behind(first, c, k->key) == k->second && peek(&k->second->mac) == mark;
    if (ok) {
        poke(&k->second->next, LIST_END);
        __atomic_store_n(&k->second->mac, k->key ^ (uintptr_t)LIST_END, __ATOMIC_RELEASE);
    } else {
        (void)change(k->second, c, mark, k->key ^ (uintptr_t)k->rest);
    }
    ss_unlock_all();
    return ok;
}

static chain counted(const cut *k, unsigned most) {
    chain out = {k->rest, k->key, 0};
    for (const block *b = k->rest; b != LIST_END && out.count < most; b = b->next) { /* a block freed twice makes a ring */
        out.count++;
        if (!block_links(b, k->key)) break; /* damaged: the flush will say so */
    }
    return out;
}

static uint32_t look_of(const struct hak_tls *t, unsigned c) {
    return (uint32_t)((uintptr_t)t->head[c] >> 4 ^ (uintptr_t)(uint32_t)t->room[c] << 20);
}

static void take_hot(heap *h, struct hak_tls *lists) {
    static cut cuts[CLASSES + 1];
    bool any = false;
    for (unsigned c = 1; c <= CLASSES; c++) {
        uint32_t look = look_of(lists, c);
        bool idle = (look == h->seen[c] || !IDLE_NS_PER_MS) && lists->head[c] != LIST_END && os_barrier_on() &&
                    begin_cut(&cuts[c], lists, c);
        h->seen[c] = look;
        if (!idle) cuts[c].rest = NULL;
        any |= idle;
    }
    if (!any) return;
    bool sure = os_barrier() && os_read_memory(lists, h->tls, sizeof *lists) == OS_READ && lists->heap == h;
    hak_taken_over(h->tls);
    for (unsigned c = 1; c <= CLASSES; c++) {
        if (!cuts[c].rest || !end_cut(&cuts[c], sure ? lists->head[c] : NULL, c)) continue;
        back[c] = counted(&cuts[c], (unsigned)(h->cap[c] - lists->room[c]));
        h->taken[c] += (uint16_t)back[c].count;
        h->cap[c] -= (int16_t)back[c].count;
    }
}
#else
static void take_hot(heap *h, struct hak_tls *lists) { (void)h, (void)lists; }
#endif

/* A full chain that is still there after two looks: one that moves with the hot list is in use. */
static void take_spare(heap *h, bool gone) {
    for (unsigned c = 1; c <= CLASSES; c++) {
        if (!gone && h->spare_seen[c] != h->spare[c].head) {
            h->spare_seen[c] = h->spare[c].head;
            continue;
        }
        back[CLASSES + c] = h->spare[c];
        h->spare[c] = (chain){0};
    }
}

static void take_back(heap *h) {
    static struct hak_tls lists;
    if (pthread_mutex_trylock(&h->lock)) return; /* on a slow way: not idle */
    os_look read = os_read_memory(&lists, h->tls, sizeof lists);
    /* A thread that used the heap after its destructors had run, or that a fork has left behind. */
    bool gone = read == OS_NOTHING_THERE || (read == OS_READ && lists.heap != h);
    if (read == OS_READ && !gone) take_hot(h, &lists);
    take_spare(h, gone);
    unlock(&h->lock);
    for (unsigned i = 1; i <= 2 * CLASSES; i++) {
        if (!back[i].count) continue;
        STAT_N(idle_taken, back[i].count);
        slab_flush(NULL, i > CLASSES ? i - CLASSES : i, back[i]);
        back[i] = (chain){0};
    }
    if (!gone) return;
    slab_abandon(&h->slabs);
    h->tls = NULL; /* its record stays as it is: what it counted still counts */
}

static uint64_t idle_ns(void) { return (uint64_t)gate(G_SS_LEAN_CACHE_IDLE_MS) * IDLE_NS_PER_MS; }

static COLD void look_at_all(const heap *self) {
    uint64_t t0 = os_cpu_ns();
    if (pthread_mutex_trylock(&heaps_lock)) return; /* somebody looks already, for longer than the pause was */
    for (heap *h = hak_heaps; h; h = h->made)
        if (h != self && h->tls) take_back(h);
    unlock(&heaps_lock);
    poke(&pause_ns, policy_pause(idle_ns(), os_cpu_ns() - t0, (unsigned)gate(G_SS_LEAN_CPU_PERMILLE)));
}

void heap_look_for_idle(const heap *self) {
    uint64_t last = peek(&looked), now = os_now_coarse_ns(); /* in this order: the clock of who looked may be ahead */
    if (!last) { /* nobody is idle yet */
        poke(&pause_ns, idle_ns());
        poke(&looked, now);
    }
    if (gate(G_SS_LEAN_CACHE_IDLE_MS) && policy_is_due(last, now, peek(&pause_ns)) &&
        __atomic_compare_exchange_n(&looked, &last, now, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        look_at_all(self);
}
