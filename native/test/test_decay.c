/* Lean under its target: free pages go back once they are old, when the gate says how old. */
#include "giving_back.h"

/* Enough traffic of another size that lists are refilled and flushed: decay is looked at on activity only. */
static void some_activity(void) {
    static void *blocks[64];
    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < 64; i++) CHECK((blocks[i] = A(malloc)(3000)));
        for (int i = 0; i < 64; i++) A(free)(blocks[i]);
    }
}

static void old_pages_go_back(void) { burst_goes_back(some_activity); }

int main(int argc, char **argv) {
    (void)argc;
    if (!hakmem_stats_get) {
        SKIP(old_pages_go_back, "not hakmem");
        return 0;
    }
    under_lean(argv, (const char *const[][2]){{"HAKMEM_SS_LEAN_DECAY_MS", "50"}, {NULL}});
    RUN(old_pages_go_back);
    return 0;
}
