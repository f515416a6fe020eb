/* allocation before any constructor of the allocator, or of anything else, has run */
#include "test.h"

static char *early;

__attribute__((constructor(101))) static void before_all_others(void) {
    early = A(malloc)(100);
    if (early) fill(early, 100, 7);
}

static void blocks_from_before_main(void) {
    CHECK(early && (uintptr_t)early % 16 == 0);
    char *other = A(malloc)(100);
    CHECK(other && other != early);
    CHECK(is_filled(early, 100, 7));
    A(free)(early);
    A(free)(other);
}

int main(void) {
    RUN(blocks_from_before_main);
    return 0;
}
