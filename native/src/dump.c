#include "dump.h"

#include "diag.h"
#include "gates.h"
#include "stats.h"
#include "tcache.h"

#include <stdio.h>

size_t dump_json(char *buf, size_t size) {
    size_t n = 0;
#define LEFT n < size ? buf + n : NULL, n < size ? size - n : 0
    n += (size_t)snprintf(LEFT, "{\"name\":\"hakmem\",\"version\":\"" HAK_VERSION "\",\"build\":\"" HAK_BUILD_NAME "\",\"gates\":");
    n += gates_json(LEFT);
    n += (size_t)snprintf(LEFT, ",\"counters\":");
    n += HAK_STATS_ON ? stats_json(LEFT) : (size_t)snprintf(LEFT, "{}");
    n += (size_t)snprintf(LEFT, "}");
#undef LEFT
    return n;
}

#if HAK_STATS_ON
#define N(name) ((unsigned long long)t->n[ST_##name])

static void os_stats(const stats_block *t) {
    hak_print("[SS_OS_STATS] alloc=%llu free=%llu madvise=%llu madvise_refused=%llu madvise_failed=%llu lean_decommit=%llu "
              "lean_retire=%llu",
              N(os_alloc), N(os_free), N(sys_madvise), N(advise_foreign), N(advise_failed), N(lean_decommit), N(lean_retire));
    hak_print(
        "[SS_OS_STATS] mmap=%llu munmap=%llu mprotect=%llu mremap=%llu pages_released=%llu purge_runs=%llu target_unreachable=%llu",
        N(sys_mmap), N(sys_munmap), N(sys_mprotect), N(sys_mremap), N(pages_released), N(purge_runs), N(target_unreachable));
}

static void memory(const stats_block *t) {
    (void)t;
    size_t cached, heaps = tcache_bytes(&cached), superslabs, units;
    ss_count(&superslabs, &units);
    size_t page_box = lean_metadata(), policy = sizeof(stats_block), warm = (size_t)gate(G_WARM_POOL) * sizeof(size_t);
    hak_print("[RSS] max_kb=%zu", os_peak_kb());
    hak_print("[TINY_MEM_STATS] unified_cache=%zu warm_pool=%zu page_box=%zu tls_mag=%zu policy_stats=%zu total=%zu", heaps, warm,
              page_box, sizeof(tcache), policy, heaps + page_box + sizeof(tcache) + policy);
    hak_print("[TINY_MEM_STATS] superslabs=%zu slabs=%zu resident_kb=%zu cached_blocks_kb=%zu", superslabs, units,
              lean_resident() >> 10, cached >> 10);
}

static void per_class(const stats_block *t) {
    hak_print("[SS_STATS] class live empty_events slab_live_events");
    for (int c = 0; c < OCTAVES; c++)
        hak_print("[SS_STATS] C%d %llu %llu %llu", c, (unsigned long long)(t->oct[c][OCT_TAKEN] - t->oct[c][OCT_RETURNED]),
                  (unsigned long long)t->oct[c][OCT_EMPTY], (unsigned long long)t->oct[c][OCT_SLAB_LIVE]);
}

static void warm_pool(const stats_block *t) {
    hak_print("[WARM_POOL] hits=%llu puts=%llu new_slabs=%llu", N(warm_hit), N(warm_put), N(refill_new));
}

void dump_at_exit(void) {
    static const struct {
        int gate;
        void (*print)(const stats_block *);
    } dumps[] = {
        {G_SS_OS_STATS, os_stats}, {G_TINY_MEM_DUMP, memory}, {G_SS_STATS_DUMP, per_class}, {G_WARM_POOL_STATS, warm_pool}};
    stats_block t;
    stats_total(&t);
    for (size_t i = 0; i < sizeof dumps / sizeof dumps[0]; i++)
        if (gate(dumps[i].gate)) dumps[i].print(&t);
}
#else
void dump_at_exit(void) {}
#endif
