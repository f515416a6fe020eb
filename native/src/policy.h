/* policy: arithmetic that decides, and nothing that acts. Sizes in bytes, time in nanoseconds, always an argument. A leaf.
 *
 *   policy_purse   a CPU budget over windows of 10 s: spent <= share of the window
 *   policy_pulse   how busy SuperSlabs come and go, for the adaptive reserve
 */
#ifndef HAK_POLICY_H
#define HAK_POLICY_H

#include "base.h"

#define POLICY_WINDOW_NS 10000000000ull
#define POLICY_IDLE_NS 10000000ull /* the user's rule: idle for over 10 ms keeps nothing */

typedef struct {
    uint64_t window_start, spent;
} policy_purse;

typedef struct {
    uint64_t last, mean_gap; /* exponential mean of the gaps between events, 0: no event yet */
} policy_pulse;

/* Bytes by which a process is above its ceiling; 0 when it is not. */
size_t policy_excess(size_t target, size_t before_start, size_t resident);

bool policy_may_spend(policy_purse *p, uint64_t now, unsigned permille);
void policy_spent(policy_purse *p, uint64_t ns);

void policy_beat(policy_pulse *p, uint64_t now);
/* Empty SuperSlabs worth keeping resident: mode 0..2 as said, 3 adaptive. */
unsigned policy_reserve(int mode, const policy_pulse *p, uint64_t now);

/* Blocks a hot list may hold: the user's table per octave, scaled, at least 2; Lean allows at most 16 KiB or 8 blocks. */
unsigned policy_cap(size_t block_size, int octave, unsigned scale_pct, bool lean);

/* Blocks fetched at a miss: about `bytes` worth, 1..128, no more than half the cap. */
unsigned policy_batch(size_t block_size, size_t bytes, unsigned cap);

#endif
