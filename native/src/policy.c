#include "policy.h"

size_t policy_excess(size_t target, size_t before_start, size_t resident) {
    size_t all = before_start + resident;
    return all > target ? all - target : 0;
}

bool policy_may_spend(policy_purse *p, uint64_t now, unsigned permille) {
    if (now - p->window_start >= POLICY_WINDOW_NS) *p = (policy_purse){.window_start = now};
    return p->spent <= POLICY_WINDOW_NS / 1000 * permille;
}

void policy_spent(policy_purse *p, uint64_t ns) { p->spent += ns; }

void policy_beat(policy_pulse *p, uint64_t now) {
    uint64_t gap = now - p->last;
    if (p->last) p->mean_gap = p->mean_gap ? (p->mean_gap * 7 + gap) / 8 : gap;
    p->last = now;
}

unsigned policy_reserve(int mode, const policy_pulse *p, uint64_t now) {
    if (mode < 3) return (unsigned)mode;
    if (now - p->last > POLICY_IDLE_NS) return 0;
    return p->mean_gap && p->mean_gap < POLICY_IDLE_NS / 10 ? 2 : 1;
}

unsigned policy_cap(size_t block_size, int octave, unsigned scale_pct, bool lean) {
    static const unsigned table[8] = {2048, 1024, 768, 512, 256, 256, 128, 64}; /* the user's, per octave */
    size_t cap = octave < 8 ? table[octave] : 131072 / block_size;
#ifdef HAK_STRESS
    cap = 8;
#endif
    cap = cap * scale_pct / 100;
    if (lean) {
        size_t most = 16384 / block_size;
        if (most < 8) most = 8;
        if (cap > most) cap = most;
    }
    return cap < 2 ? 2 : (unsigned)cap;
}

unsigned policy_batch(size_t block_size, size_t bytes, unsigned cap) {
    size_t n = bytes / block_size;
    if (n > 128) n = 128;
    if (n > cap / 2) n = cap / 2;
    return n < 1 ? 1 : (unsigned)n;
}
