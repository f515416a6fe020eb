#include "policy.h"

size_t policy_all(ptrdiff_t others, size_t resident) {
    return others < 0 && (size_t)-others > resident ? 0 : resident + (size_t)others;
}

size_t policy_excess(size_t target, size_t all) { return all > target ? all - target : 0; }

uint64_t policy_wait(policy_purse *p, uint64_t now, unsigned permille) {
    static const unsigned twentieths[ACCOUNTS] = {[BURSTS] = 10, [STEADY] = 19}; /* earned as time passes */
    uint64_t twentieth = POLICY_WINDOW_NS / 20000 * permille, passed = now > p->at ? now - p->at : 0, wait = UINT64_MAX;
    p->at += passed; /* a thread may be late with its clock */
    for (unsigned i = 0; i < ACCOUNTS; i++) {
        uint64_t rate = (uint64_t)permille * twentieths[i], earned = passed < POLICY_WINDOW_NS ? passed * rate / 20000 : UINT64_MAX;
        uint64_t at_once = (20 - twentieths[i]) * twentieth, refilled = at_once - twentieth / 2;
        p->owed[i] = p->owed[i] > earned ? p->owed[i] - earned : 0;
        p->dry[i] = p->owed[i] >= (p->dry[i] ? refilled : at_once);
        uint64_t until = p->dry[i] ? (p->owed[i] - refilled + 1) * 20000 / rate + 1 : 0;
        if (until < wait) wait = until;
    }
    return wait;
}

void policy_spent(policy_purse *p, uint64_t ns) {
    for (unsigned i = 0; i < ACCOUNTS; i++) p->owed[i] += ns;
}

uint64_t policy_pause(uint64_t wanted, uint64_t cost, unsigned permille) {
    uint64_t least = wanted ? cost * 1000 / permille : 0;
    return wanted > least ? wanted : least;
}

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

/* What thread caches hold, about 1 MiB a thread, is worth a fight only where it is much of the target. */
#define SMALL_TARGET (8 * MIB)

policy_pressure policy_press(policy_pressure now, size_t target, size_t all, bool futile) {
    if (futile && (all > target / 4 * 5 || target > SMALL_TARGET)) return PRESSURE_NONE;
    if (all / 2 > target) return PRESSURE_LEAN;
    if (all > target) return PRESSURE_HIGH;
    return now == PRESSURE_HIGH && all > target / 8 * 7 ? PRESSURE_HIGH : PRESSURE_LEAN;
}

bool policy_caches(size_t block_size, policy_pressure pressure) { return pressure != PRESSURE_HIGH || block_size <= 1024; }

unsigned policy_cap(size_t block_size, int octave, unsigned scale_pct, policy_pressure pressure) {
    static const unsigned table[8] = {2048, 1024, 768, 512, 256, 256, 128, 64}; /* the user's, per octave */
    static const struct {
        size_t bytes, blocks; /* so many blocks are always allowed */
        size_t above;         /* bytes where the octaves end */
    } most[] = {{SIZE_MAX, SIZE_MAX, 262144}, {8192, 8, 131072}, {1024, 1, 131072}}; /* by pressure */
    size_t cap = octave < 8 ? table[octave] : most[pressure].above / block_size;
#ifdef HAK_STRESS
    cap = 8;
#endif
    cap = cap * scale_pct / 100;
    size_t fit = most[pressure].bytes / block_size;
    if (fit < most[pressure].blocks && pressure) fit = most[pressure].blocks;
    if (cap > fit) cap = fit;
    return cap > 1 ? (unsigned)cap : pressure == PRESSURE_HIGH ? 1 : 2;
}

bool policy_may_serve(size_t block_size, size_t larger) { return larger <= block_size + block_size / 4; }

unsigned policy_adapt(unsigned cap, unsigned least, unsigned most, bool missed) {
    unsigned to = missed ? cap * 2 : cap / 2;
    return to < least ? least : to > most ? most : to;
}

size_t policy_step(size_t last, size_t smallest, size_t resident, size_t freed, size_t found) {
    size_t least = resident / 32 > smallest ? resident / 32 : smallest;
    size_t most = resident / 4 < 8 * smallest ? resident / 4 : 8 * smallest;
    if (found > freed / 16 || most < least) return least;
    if (freed < smallest) return last < least ? least : last > most ? most : last; /* that little tells nothing */
    return 2 * last < least ? least : 2 * last > most ? most : 2 * last;
}

bool policy_fell(size_t *level, size_t resident) {
    bool fell = resident < *level / 8 * 7;
    if (fell || resident > *level) *level = resident;
    return fell;
}

bool policy_is_due(uint64_t since, uint64_t now, uint64_t limit) { return since && now - since >= limit; }

unsigned policy_batch(size_t block_size, size_t bytes, unsigned cap) {
    size_t n = bytes / block_size;
    if (n > 128) n = 128;
    if (n > cap / 2) n = cap / 2;
    return n < 1 ? 1 : (unsigned)n;
}
