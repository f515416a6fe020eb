/* What the tests of Lean share: the program again under its gates, and a burst whose memory must go back. */
#ifndef HAK_TEST_GIVING_BACK_H
#define HAK_TEST_GIVING_BACK_H

#include "test.h"

#include <time.h>

#include "hakmem.h"
#pragma weak hakmem_stats_get

static inline void sleep_ms(long ms) { nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL); }

/* Gates are read before main: sets them, and Lean below its target, where caches are worth something, and runs the program once more. */
static inline void under_lean(char **argv, const char *const gates[][2]) {
    if (getenv(gates[0][0])) return;
    setenv("HAKMEM_SS_MEM_LEAN", "1", 1);
    setenv("HAKMEM_SS_MEM_LEAN_TARGET_MB", "100", 1);
    setenv("HAKMEM_SS_MEM_LEAN_DECOMMIT", "DONTNEED", 0);
    for (; gates[0][0]; gates++) setenv(gates[0][0], gates[0][1], 1);
    execv("/proc/self/exe", argv);
    CHECK(!"execv");
}

/* A block, resident whole. */
static inline char *take(size_t size) {
    char *p = A(malloc)(size);
    CHECK(p);
    memset(p, 1, size);
    return p;
}

static inline size_t resident(void) {
    hakmem_stats now;
    hakmem_stats_get(&now);
    return now.resident;
}

/* Many blocks of which few stay: within seconds less than half of their memory is resident, and what stays is whole. */
static inline void burst_goes_back(void (*meanwhile)(void)) {
    enum { BURST = 20000, BURST_SIZE = 600, KEEP_EACH = 50 };
    static char *blocks[BURST];
    for (unsigned i = 0; i < BURST; i++) {
        CHECK((blocks[i] = A(malloc)(BURST_SIZE)));
        fill(blocks[i], BURST_SIZE, i);
    }
    size_t full = resident();
    for (unsigned i = 0; i < BURST; i++)
        if (i % KEEP_EACH) A(free)(blocks[i]);
    for (int i = 0; i < 1000 && resident() > full / 2; i++) {
        sleep_ms(10);
        if (meanwhile) meanwhile();
    }
    CHECK(resident() <= full / 2);
    for (unsigned i = 0; i < BURST; i += KEEP_EACH) {
        CHECK(is_filled(blocks[i], BURST_SIZE, i));
        A(free)(blocks[i]);
    }
}

#endif
