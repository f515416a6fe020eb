#include "lean.h"

#include "diag.h"
#include "gates.h"
#include "os.h"
#include "stats.h"

#include <sys/mman.h>

#define OTHERS_NS 1000000000u

bool hak_lean_releases;
static bool lean, warned_unreachable, purges_futile;
static ptrdiff_t others, others_at_start;
static size_t metadata, resident_level, purge_step = PURGE_STEP_BYTES;
/* Threads add to them on their slow ways: nothing that the fast path reads stands in the same cache line. */
static __attribute__((aligned(64))) size_t resident;
static __attribute__((aligned(64))) size_t freed_since_purge;
static policy_pressure pressure;
static policy_pulse pulse;
static policy_purse purse;
static hak_lock purse_lock = HAK_LOCK_INIT;

void lean_lock(void) { lock(&purse_lock); }
void lean_unlock(void) { unlock(&purse_lock); }

void lean_init(void) {
    lean = gate(G_SS_MEM_LEAN);
    hak_lean_releases = lean && ss_mem_lean_decommit_mode() != DECOMMIT_OFF;
    if (hak_lean_releases) others = others_at_start = (ptrdiff_t)os_resident_bytes();
    pressure = lean_releases() ? PRESSURE_LEAN : PRESSURE_NONE;
}

int ss_mem_lean_enabled(void) { return lean; }
int ss_mem_lean_target_mb(void) { return (int)gate(G_SS_MEM_LEAN_TARGET_MB); }
ss_mem_lean_decommit_mode_t ss_mem_lean_decommit_mode(void) { return (int)gate(G_SS_MEM_LEAN_DECOMMIT); }
void ss_os_stats_record_lean_retire(void) { STAT(lean_retire); }

void lean_add_resident(size_t bytes) { __atomic_fetch_add(&resident, bytes, __ATOMIC_RELAXED); }
void lean_set_metadata(size_t bytes) { poke(&metadata, bytes); }
size_t lean_resident(void) { return peek(&resident); }
size_t lean_metadata(void) { return peek(&metadata); }

static size_t target(void) { return (size_t)ss_mem_lean_target_mb() * MIB; }
static size_t aim(void) { return target() / 32 * 31; } /* what comes between two looks must fit below the ceiling, too */
static size_t ours(void) { return lean_resident() + lean_metadata(); }
static size_t all(void) { return policy_all(peek(&others), ours()); }

/* The program's own pages come after the start, too, and not all that is allocated is touched. Asked again when ours have moved by a sixteenth of
 * themselves or of the target, and once a second while blocks are freed. With FREE the kernel counts pages that it may take as resident: what it says is the most it can be. */
static void look_at_others(bool freed) {
    static size_t seen;
    static uint64_t asked;
    size_t mine = ours(), before = peek(&seen);
    size_t moved_by = mine > before ? mine - before : before - mine, much = mine > target() ? mine : target();
    bool moved = moved_by > much / 16;
    if (!moved && !freed) return;
    uint64_t now = os_now_coarse_ns();
    if (!moved && now - peek(&asked) < OTHERS_NS) return;
    poke(&asked, now);
    poke(&seen, mine);
    size_t known = os_resident_bytes();
    ptrdiff_t rest = (ptrdiff_t)(known - mine);
    if (!lean_released_reads_zero() && rest > others_at_start) rest = others_at_start;
    if (known) poke(&others, rest);
}

size_t lean_excess(void) {
    if (!lean_releases()) return 0;
    policy_pressure was = peek(&pressure), is = policy_press(was, aim(), all(), peek(&purges_futile));
    if (is != was) poke(&pressure, is);
    return policy_excess(aim(), all());
}

policy_pressure lean_pressure(void) { return peek(&pressure); }

void lean_beat(void) { policy_beat(&pulse, os_now_coarse_ns()); }
size_t lean_superslabs_to_keep(void) {
    return policy_reserve((int)gate(G_SS_EMPTY_RESERVE), &pulse, os_now_coarse_ns()) + (size_t)gate(G_SS_CACHE_GLOBAL);
}

bool lean_released_reads_zero(void) { return !(lean && ss_mem_lean_decommit_mode() == DECOMMIT_FREE); }
int lean_advice(void) { return lean_released_reads_zero() ? MADV_DONTNEED : MADV_FREE; }

int ss_maybe_decommit_superslab(void *ptr, size_t size) {
    if (ss_os_madvise_guarded(ptr, size, lean_advice())) return -1;
    STAT(lean_decommit);
    return 0;
}

void lean_freed(size_t bytes) { __atomic_fetch_add(&freed_since_purge, bytes, __ATOMIC_RELAXED); }

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

/* Asked on every slow way while the purse is empty, so the answer is remembered. What cannot be given back now is no reason for small caches. */
static bool may_spend(bool over) {
    static uint64_t dry_until;
    uint64_t now = os_now_coarse_ns();
    if (now < peek(&dry_until)) {
        STAT(early_cpu_budget);
        return false;
    }
    lock(&purse_lock);
    uint64_t wait = policy_wait(&purse, now, (unsigned)gate(G_SS_LEAN_CPU_PERMILLE));
    unlock(&purse_lock);
    if (!wait) return true;
    poke(&dry_until, now + wait);
    poke(&purges_futile, over);
    STAT(early_cpu_budget);
    return false;
}

bool lean_may_spend(void) { return may_spend(lean_excess() > 0); }

void lean_spent_since(uint64_t t0) {
    uint64_t spent = os_cpu_ns() - t0;
    lock(&purse_lock);
    policy_spent(&purse, spent);
    unlock(&purse_lock);
    STAT_N(purge_ns, spent);
}

bool lean_purge_begin(lean_purge *p, bool at_rest) {
    bool old = too_old();
    p->freed = peek(&freed_since_purge);
    look_at_others(p->freed >= peek(&purge_step));
    p->over = lean_excess() > 0;
    p->kept = p->over || old;
    size_t was = peek(&resident_level), level = was;
    bool fell = policy_fell(&level, lean_resident());
    if (level > was) poke(&resident_level, level); /* a fall counts until there was a search */
    if (!p->over && !old && !fell) {
        STAT(early_under_target);
        return false;
    }
    if ((p->freed < (at_rest ? 1 : peek(&purge_step)) && !old) || !may_spend(p->over)) return false;
    poke(&freed_since_purge, 0);
    p->resident = lean_resident();
    p->t0 = os_cpu_ns();
    return true;
}

void lean_purge_end(const lean_purge *p) {
    size_t now = lean_resident();
    poke(&resident_level, now);
    size_t found = p->resident > now ? p->resident - now : 0;
    poke(&purge_step, policy_step(peek(&purge_step), PURGE_STEP_BYTES, now, p->freed, found));
    poke(&purges_futile, p->over && p->resident < now + p->freed / 4);
    lean_spent_since(p->t0);
    STAT(purge_runs);
    size_t over = lean_excess() ? policy_excess(target(), all()) : 0;
    if (!over) return;
    STAT(target_unreachable);
    if (gate(G_SS_OS_STATS) && !__atomic_exchange_n(&warned_unreachable, true, __ATOMIC_RELAXED))
        hak_msg("target of %d MB is out of reach: live data and the pages it stands on are %zu KB above it",
                ss_mem_lean_target_mb(), over >> 10);
}
