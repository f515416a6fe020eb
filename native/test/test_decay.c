/* Lean under its target: free pages go back once they are old, when the gate says how old. */
#include "test.h"

#include <time.h>

#include "hakmem.h"
#pragma weak hakmem_stats_get

enum { BLOCKS = 20000, SIZE = 600, KEEP_EACH = 50, DECAY_MS = 50 };

static size_t resident(void) {
    hakmem_stats now;
    hakmem_stats_get(&now);
    return now.resident;
}

/* Enough traffic of another size that lists are refilled and flushed: decay is looked at on activity only. */
static void some_activity(void) {
    static void *blocks[64];
    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < 64; i++) CHECK((blocks[i] = A(malloc)(3000)));
        for (int i = 0; i < 64; i++) A(free)(blocks[i]);
    }
}

static void old_pages_go_back(void) {
    static char *blocks[BLOCKS];
    for (unsigned i = 0; i < BLOCKS; i++) {
        CHECK((blocks[i] = A(malloc)(SIZE)));
        fill(blocks[i], SIZE, i);
    }
    size_t full = resident();
    for (unsigned i = 0; i < BLOCKS; i++)
        if (i % KEEP_EACH) A(free)(blocks[i]);
    for (int i = 0; i < 100 && resident() > full / 2; i++) {
        nanosleep(&(struct timespec){.tv_nsec = DECAY_MS * 1000000 / 5}, NULL);
        some_activity();
    }
    CHECK(resident() < full / 2);
    for (unsigned i = 0; i < BLOCKS; i += KEEP_EACH) {
        CHECK(is_filled(blocks[i], SIZE, i));
        A(free)(blocks[i]);
    }
}

int main(int argc, char **argv) {
    (void)argc;
    if (!hakmem_stats_get) {
        SKIP(old_pages_go_back, "not hakmem");
        return 0;
    }
    if (!getenv("HAKMEM_SS_LEAN_DECAY_MS")) { /* gates are read before main: once more, with the gate set */
        setenv("HAKMEM_SS_LEAN_DECAY_MS", "50", 1);
        setenv("HAKMEM_SS_MEM_LEAN", "1", 1);
        setenv("HAKMEM_SS_MEM_LEAN_DECOMMIT", "DONTNEED", 1);
        setenv("HAKMEM_SS_MEM_LEAN_TARGET_MB", "100", 1);
        execv("/proc/self/exe", argv);
        CHECK(!"execv");
    }
    RUN(old_pages_go_back);
    return 0;
}
