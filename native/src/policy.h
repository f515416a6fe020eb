/* policy: arithmetic that decides, and nothing that acts. Sizes in bytes, time in nanoseconds, always an argument. A leaf.
 *
 *   policy_purse   a CPU budget: at most a share of any 10 s. Two accounts are charged with all that is spent, and it is enough that one has something left:
 *                  of one, half may be spent at once and half as time passes, for bursts; of the other, a twentieth and the rest, for what goes on and on.
 *                  Either alone keeps to the share: what an account owes is no less than what 10 s took beyond what they earned.
 *   policy_pulse   how busy SuperSlabs come and go, for the adaptive reserve
 */
#ifndef HAK_POLICY_H
#define HAK_POLICY_H

#include "base.h"

#define POLICY_WINDOW_NS 10000000000ull
#define POLICY_IDLE_NS 10000000ull /* the user's rule: idle for over 10 ms keeps nothing */

enum { BURSTS, STEADY, ACCOUNTS };
typedef struct {
    uint64_t at, owed[ACCOUNTS]; /* spent and not yet earned again, as of `at` */
    bool dry[ACCOUNTS];
} policy_purse;

typedef struct {
    uint64_t last, mean_gap; /* exponential mean of the gaps between events, 0: no event yet */
} policy_pulse;

/* Bytes of the process: ours, and others', which are below 0 where some of ours were never touched. */
size_t policy_all(ptrdiff_t others, size_t resident);

/* Bytes by which a process is above its ceiling; 0 when it is not. */
size_t policy_excess(size_t target, size_t all);

/* 0 while an account has something left; then the time until a fortieth of the window's share is earned: many small purges would cost more a page than a
 * few. */
uint64_t policy_wait(policy_purse *p, uint64_t now, unsigned permille);
void policy_spent(policy_purse *p, uint64_t ns);
/* From one look to the next, where they are wanted so far apart (0: without a pause) and the last one took `cost`: looks take no more than the share, either. */
uint64_t policy_pause(uint64_t wanted, uint64_t cost, unsigned permille);

void policy_beat(policy_pulse *p, uint64_t now);
/* Empty SuperSlabs worth keeping resident: mode 0..2 as said, 3 adaptive. */
unsigned policy_reserve(int mode, const policy_pulse *p, uint64_t now);

/* How hard Lean presses on the thread caches: outside Lean not at all, under the target a little, above it much. It presses on till well below the
 * target, so that caches do not swing with every purge. Above twice the target, what caches hold is not what is too much, and frees want to be fast: a
 * little again. Where the target is out of reach not at all: purges are futile, and the target is above 8 MiB or missed by a quarter. Small caches would
 * only cost time there. */
typedef enum { PRESSURE_NONE, PRESSURE_LEAN, PRESSURE_HIGH } policy_pressure;
policy_pressure policy_press(policy_pressure now, size_t target, size_t all, bool futile);

/* Blocks a thread may hold back: the user's table per octave, scaled, at least 2. Lean starts from at most 8 KiB (above the target
 * 1 KiB) and lets a cache grow to the table's figure where it is both filled and emptied: see policy_adapt. */
bool policy_caches(size_t block_size,
                   policy_pressure pressure); /* above the target none above 1 KiB: each may hold a page or two */
unsigned policy_cap(size_t block_size, int octave, unsigned scale_pct, policy_pressure pressure);
/* Above the target: whether a block of a larger class may serve, at a quarter more at most. */
bool policy_may_serve(size_t block_size, size_t larger);

/* The capacity after a list ran full: doubled if there was a miss since it last did, else (the thread only frees) halved. */
unsigned policy_adapt(unsigned cap, unsigned least, unsigned most, bool missed);

/* Bytes to be freed before the next search for free pages, after one that found `found` for the `freed`: a share of what is resident, so that the search
 * costs little a byte freed, finds pages in longer runs, and leaves little behind. Where the last one found little, up to eight times the smallest step, but
 * no more than a quarter of what is resident: steady traffic above the target would spend the budget on searches. */
size_t policy_step(size_t last, size_t smallest, size_t resident, size_t freed, size_t found);

/* Whether what is resident has fallen by an eighth, since it was highest or since `level` was set: a burst ends, and pages of slabs that are left may
 * be free. Steady traffic does not fall, so it asks for no purge. */
bool policy_fell(size_t *level, size_t resident);

/* Whether what was noticed at `since` (0: nothing yet) is older than `limit`. */
bool policy_is_due(uint64_t since, uint64_t now, uint64_t limit);

/* Blocks fetched at a miss: about `bytes` worth, 1..128, no more than half the cap. */
unsigned policy_batch(size_t block_size, size_t bytes, unsigned cap);

#endif
