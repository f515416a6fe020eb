#include "depot.h"

#include "classes.h"
#include "lean.h"
#include "os.h"
#include "stats.h"

uintptr_t hak_secret;
size_t hak_last_heap;
#if HAK_CHECKS
block hak_sentinel = {NULL, UINTPTR_MAX}; /* no list's key, nor 0, which keys are before the start */
#endif

typedef struct {
    hak_lock lock;
    unsigned count;
    chain chains[DEPOT_CHAINS];
} shelf;

/* All zero, as a plain mutex is: resident where it is used only, and most programs hand over chains of few classes. */
static shelf shelves[CLASSES + 1] = {[0 ... CLASSES] = {.lock = PTHREAD_MUTEX_INITIALIZER}};

void depot_init(void) { hak_secret = os_random() & INTPTR_MAX; /* the sentinel never looks free */ }

void depot_lock_all(void) {
    for (unsigned c = 1; c <= CLASSES; c++) lock(&shelves[c].lock);
}
void depot_unlock_all(void) {
    for (unsigned c = 1; c <= CLASSES; c++) unlock(&shelves[c].lock);
}

bool depot_put(unsigned cls, chain c) {
    shelf *s = &shelves[cls];
    if (lean_releases() || peek(&s->count) == DEPOT_CHAINS) return false;
    lock(&s->lock);
    bool ok = s->count < DEPOT_CHAINS;
    if (ok) {
        s->chains[s->count] = c;
        poke(&s->count, s->count + 1);
    }
    unlock(&s->lock);
    if (ok) STAT(depot_put);
    return ok;
}

bool depot_get(unsigned cls, chain *c) {
    shelf *s = &shelves[cls];
    if (!peek(&s->count)) return false;
    lock(&s->lock);
    bool ok = s->count > 0;
    if (ok) {
        *c = s->chains[s->count - 1];
        poke(&s->count, s->count - 1);
    }
    unlock(&s->lock);
    return ok;
}

bool chain_holds(const chain *c, const block *b) {
    const block *at = c->head;
    for (unsigned i = 0; i < c->count && at != LIST_END; i++, at = at->next)
        if (at == b) return true;
        else if (HAK_CHECKS && !block_links(at, c->key)) break;
    return false;
}

size_t depot_blocks(unsigned cls) {
    shelf *s = &shelves[cls];
    size_t n = 0;
    lock(&s->lock);
    for (unsigned i = 0; i < s->count; i++) n += s->chains[i].count;
    unlock(&s->lock);
    return n;
}

bool depot_holds(const block *b, unsigned cls) {
    shelf *s = &shelves[cls];
    bool found = false;
    lock(&s->lock);
    for (unsigned i = 0; i < s->count && !found; i++) found = chain_holds(&s->chains[i], b);
    unlock(&s->lock);
    return found;
}

depot_layout depot_where(void) {
    return (depot_layout){&shelves[0].count, &shelves[0].chains[0].count, sizeof shelves[0], sizeof(chain)};
}
