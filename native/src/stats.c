#include "stats.h"

#include <stdio.h>
#include <string.h>

_Thread_local stats_block *hak_stats_self;
static stats_block own_shared;
stats_block *hak_stats_shared = &own_shared;
static stats_block *blocks;            /* registered */
static stats_block *unused;            /* shared ones that no thread counts in */
static uint64_t not_shared, *moving = &not_shared;
static hak_lock blocks_lock = HAK_LOCK_INIT;

void stats_lock(void) { lock(&blocks_lock); }
void stats_unlock(void) { unlock(&blocks_lock); }

void stats_register(stats_block *b) {
    lock(&blocks_lock);
    if (moving != &not_shared) {
        b = unused;
        if (b) unused = b->next;
    }
    if (b) {
        b->next = blocks;
        blocks = b;
    }
    unlock(&blocks_lock);
    hak_stats_self = b;
}

static void add(stats_block *to, const stats_block *b) {
    for (int i = 0; i < ST_COUNT; i++) __atomic_fetch_add(&to->n[i], peek(&b->n[i]), __ATOMIC_RELAXED);
    for (int c = 0; c < OCTAVES; c++)
        for (int k = 0; k < OCT_KINDS; k++) __atomic_fetch_add(&to->oct[c][k], peek(&b->oct[c][k]), __ATOMIC_RELAXED);
}

void stats_unregister(stats_block *b) {
    stats_block *mine = hak_stats_self;
    hak_stats_self = NULL;
    if (!mine) return;
    lock(&blocks_lock);
    for (stats_block **at = &blocks; *at; at = &(*at)->next)
        if (*at == mine) {
            *at = mine->next;
            break;
        }
    __atomic_fetch_add(moving, 1, __ATOMIC_SEQ_CST);
    add(hak_stats_shared, mine);
    if (mine != b) {
        memset(mine, 0, sizeof *mine);
        mine->next = unused;
        unused = mine;
    }
    __atomic_fetch_add(moving, 1, __ATOMIC_SEQ_CST);
    unlock(&blocks_lock);
}

COLD void stats_share(stats_block *to, size_t n, uint64_t *odd_while_moving) {
    lock(&blocks_lock);
    add(to, hak_stats_shared);
    __atomic_store_n(&hak_stats_shared, to, __ATOMIC_RELEASE);
    for (size_t i = n; i-- > 1;) {
        to[i].next = unused;
        unused = &to[i];
    }
    moving = odd_while_moving;
    unlock(&blocks_lock);
}

void stats_total(stats_block *out) {
    *out = (stats_block){0};
    lock(&blocks_lock);
    add(out, hak_stats_shared);
    for (stats_block *b = blocks; b; b = b->next) add(out, b);
    unlock(&blocks_lock);
}

const char *const hak_counter_names[ST_COUNT] = {
#define X(name, doc) [ST_##name] = #name,
    HAK_COUNTERS(X)
#undef X
};

size_t stats_counts(uint64_t *counts, size_t size) {
    stats_block t;
    size_t n = 0;
    stats_total(&t);
    for (int i = 0; i < ST_COUNT; i++, n++)
        if (n < size) counts[n] = t.n[i];
    for (int c = 0; c < OCTAVES; c++)
        for (int k = 0; k < OCT_KINDS; k++, n++)
            if (n < size) counts[n] = t.oct[c][k];
    return n;
}

COLD size_t stats_json(char *buf, size_t size) {
    static const char *const kinds[OCT_KINDS] = {HAK_OCT_KINDS};
    stats_block t;
    size_t n = 0;
    stats_total(&t);
#define PUT(...) n += (size_t)snprintf(n < size ? buf + n : NULL, n < size ? size - n : 0, __VA_ARGS__)
    for (int i = 0; i < ST_COUNT; i++) PUT("%s\"%s\":%llu", n ? "," : "{", hak_counter_names[i], (unsigned long long)t.n[i]);
    for (int c = 0; c < OCTAVES; c++)
        for (int k = 0; k < OCT_KINDS; k++) PUT(",\"c%d_%s\":%llu", c, kinds[k], (unsigned long long)t.oct[c][k]);
    PUT("}");
#undef PUT
    return n;
}
