#include "dump.h"

#include "census.h"
#include "diag.h"
#include "gates.h"
#include "heap.h"
#include "live.h"
#include "stats.h"
#include "tcache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

COLD size_t dump_json(char *buf, size_t size) {
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
/* ---- JSON at exit ---- */

static pid_t started_as;
static struct stat given; /* the descriptor of STATS_JSON; st_nlink 0: there was none */

static bool is_number(const char *text) { return *text >= '0' && *text <= '9'; }

COLD void dump_start(void) {
    const char *to = gate_text(G_STATS_JSON);
    started_as = getpid();
    if (to && is_number(to) && fstat(atoi(to), &given)) memset(&given, 0, sizeof given);
}

/* %p becomes the process id; a child of fork appends its own where there is none, and so never writes over its parent's. */
static void name_file(const char *pattern, char *path, size_t size) {
    size_t n = 0;
    bool named = false;
    for (const char *s = pattern; *s && n + 24 < size; s++) {
        if (s[0] == '%' && s[1] == 'p') {
            n += (size_t)snprintf(path + n, size - n, "%ld", (long)getpid());
            named = true;
            s++;
        } else {
            path[n++] = *s;
        }
    }
    path[n] = 0;
    if (!named && getpid() != started_as) (void)snprintf(path + n, size - n, ".%ld", (long)getpid());
}

/* -1 and errno. A descriptor must still be what it was at the start: a program may have closed it and opened a socket there. */
static int open_output(const char *to, char *path, size_t size) {
    if (is_number(to)) {
        struct stat now;
        int fd = atoi(to);
        (void)snprintf(path, size, "descriptor %d", fd);
        if (!fstat(fd, &now) && now.st_dev == given.st_dev && now.st_ino == given.st_ino) return fd;
        errno = EBADF;
        return -1;
    }
    name_file(to, path, size);
    return open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0666);
}

static size_t whole_json(char *buf, size_t size) {
    size_t n = dump_json(buf, size) - 1; /* its last bracket goes */
#define REST n < size ? buf + n : NULL, n < size ? size - n : 0
    n += (size_t)snprintf(REST, ",\"pid\":%ld,\"start\":%llu,\"peak_rss_kb\":%zu,\"residency\":", (long)getpid(),
                          (unsigned long long)live_start_ticks(), os_peak_kb());
    n += census_json(REST);
    n += (size_t)snprintf(REST, "}\n");
#undef REST
    return n;
}

static bool write_all(int fd, const char *buf, size_t size) {
    for (ssize_t n; size; buf += n, size -= (size_t)n) {
        if ((n = write(fd, buf, size)) > 0) continue;
        if (n < 0 && errno == EINTR) n = 0;
        else return false;
    }
    return true;
}

COLD void dump_json_at_exit(void) {
    const char *to = gate_text(G_STATS_JSON);
    char path[GATE_TEXT_MAX + 64];
    if (!to) return;
    int fd = open_output(to, path, sizeof path);
    bool ok = fd >= 0;
    if (ok) { /* other threads go on meanwhile: what has grown since it was measured is measured again */
        char *buf = NULL;
        size_t size = 0, need = whole_json(NULL, 0);
        while (ok && need >= size) {
            size = round_up(need + need / 4, (size_t)1 << hak_page_shift);
            ok = (buf = os_metadata(size, "statistics")) && os_commit(buf, size);
            if (ok) need = whole_json(buf, size);
        }
        ok = ok && write_all(fd, buf, need);
    }
    if (!ok) hak_msg("HAKMEM_STATS_JSON=%s: cannot write %s: %s", to, path, strerror(errno));
    if (fd >= 0 && !is_number(to)) close(fd);
}

/* ---- lines at exit, in the user's formats ---- */

#define N(name) ((unsigned long long)t->n[ST_##name])

static void os_stats(const stats_block *t) {
    hak_print("[SS_OS_STATS] alloc=%llu free=%llu madvise=%llu madvise_refused=%llu madvise_failed=%llu lean_decommit=%llu "
              "lean_retire=%llu",
              N(os_alloc), N(os_free), N(sys_madvise), N(advise_foreign), N(advise_failed), N(lean_decommit), N(lean_retire));
    hak_print(
        "[SS_OS_STATS] mmap=%llu munmap=%llu mprotect=%llu mremap=%llu pages_released=%llu purge_runs=%llu target_unreachable=%llu",
        N(sys_mmap), N(sys_munmap), N(sys_mprotect), N(sys_mremap), N(pages_released), N(purge_runs), N(target_unreachable));
    hak_print("[SS_OS_STATS] ss_new=%llu ss_reuse=%llu ss_reuse_thread=%llu ss_empty=%llu ss_cached=%llu ss_cached_thread=%llu",
              N(ss_new), N(ss_reuse), N(ss_reuse_thread), N(ss_empty), N(ss_cached), N(ss_cached_thread));
}

static void memory(const stats_block *t) {
    (void)t;
    size_t n = heap_count(), superslabs, units;
    ss_count(&superslabs, &units);
    size_t page_box = lean_metadata(), policy = n * sizeof(stats_block), warm = n * WARM_MAX * sizeof(size_t),
           mag = n * sizeof(tcache);
    size_t cache = heap_bytes() - policy - warm;
    hak_print("[RSS] max_kb=%zu", os_peak_kb());
    hak_print("[TINY_MEM_STATS] unified_cache=%zu warm_pool=%zu page_box=%zu tls_mag=%zu policy_stats=%zu total=%zu", cache, warm,
              page_box, mag, policy, cache + warm + page_box + mag + policy);
    hak_print("[TINY_MEM_STATS] superslabs=%zu slabs=%zu resident_kb=%zu cached_blocks_kb=%zu", superslabs, units,
              lean_resident() >> 10, tcache_bytes() >> 10);
}

static void per_class(const stats_block *t) {
    hak_print("[SS_STATS] class live empty_events slab_live_events");
    static const char *const name[OCTAVES] = {"C0", "C1", "C2", "C3", "C4", "C5", "C6", "C7", "M"};
    for (int c = 0; c < OCTAVES; c++)
        hak_print("[SS_STATS] %s %llu %llu %llu", name[c], (unsigned long long)(t->oct[c][OCT_TAKEN] - t->oct[c][OCT_RETURNED]),
                  (unsigned long long)t->oct[c][OCT_EMPTY], (unsigned long long)t->oct[c][OCT_SLAB_LIVE]);
}

static void warm_pool(const stats_block *t) {
    hak_print("[WARM_POOL] hits=%llu puts=%llu new_slabs=%llu", N(warm_hit), N(warm_put), N(refill_new));
}

COLD void dump_at_exit(void) {
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
void dump_start(void) {}
void dump_json_at_exit(void) {}
void dump_at_exit(void) {}
#endif
