#include "stats.h"

#include <stdio.h>

_Thread_local stats_block *hak_stats_self;
stats_block hak_stats_shared;
static stats_block *blocks;
static hak_lock blocks_lock = HAK_LOCK_INIT;

void stats_lock(void) { lock(&blocks_lock); }
void stats_unlock(void) { unlock(&blocks_lock); }

void stats_register(stats_block *b) {
    lock(&blocks_lock);
    b->next = blocks;
    blocks = b;
    unlock(&blocks_lock);
    hak_stats_self = b;
}

static void add(stats_block *to, const stats_block *b) {
    for (int i = 0; i < ST_COUNT; i++) __atomic_fetch_add(&to->n[i], peek(&b->n[i]), __ATOMIC_RELAXED);
    for (int c = 0; c < OCTAVES; c++)
        for (int k = 0; k < OCT_KINDS; k++) __atomic_fetch_add(&to->oct[c][k], peek(&b->oct[c][k]), __ATOMIC_RELAXED);
}

void stats_unregister(stats_block *b) {
    hak_stats_self = NULL;
    lock(&blocks_lock);
    for (stats_block **at = &blocks; *at; at = &(*at)->next)
        if (*at == b) {
            *at = b->next;
            break;
        }
    add(&hak_stats_shared, b);
    unlock(&blocks_lock);
}

void stats_total(stats_block *out) {
    *out = (stats_block){0};
    lock(&blocks_lock);
    add(out, &hak_stats_shared);
    for (stats_block *b = blocks; b; b = b->next) add(out, b);
    unlock(&blocks_lock);
}

static const char *const names[ST_COUNT] = {
#define X(name, doc) [ST_##name] = #name,
    HAK_COUNTERS(X)
#undef X
};

size_t stats_json(char *buf, size_t size) {
    static const char *const kinds[OCT_KINDS] = {"taken", "returned", "empty_events", "slab_live_events"};
    stats_block t;
    size_t n = 0;
    stats_total(&t);
#define PUT(...) n += (size_t)snprintf(n < size ? buf + n : NULL, n < size ? size - n : 0, __VA_ARGS__)
    for (int i = 0; i < ST_COUNT; i++) PUT("%s\"%s\":%llu", n ? "," : "{", names[i], (unsigned long long)t.n[i]);
    for (int c = 0; c < OCTAVES; c++)
        for (int k = 0; k < OCT_KINDS; k++) PUT(",\"c%d_%s\":%llu", c, kinds[k], (unsigned long long)t.oct[c][k]);
    PUT("}");
#undef PUT
    return n;
}
