/* When Lean looks for free pages: what is resident has fallen, and that counts until there was a search, which may have to wait. */
#include "giving_back.h"

#include "lean.h"

enum { BURST = 32 << 20 };

/* What is resident rises by a burst and falls by half of it, as far as Lean knows. */
static void rise_and_fall(lean_purge *p) {
    lean_add_resident(BURST);
    CHECK(!lean_purge_begin(p, false));
    lean_add_resident(-(size_t)(BURST / 2));
}

static void a_fall_counts_until_there_was_a_search(void) {
    lean_purge p;
    rise_and_fall(&p);
    lean_freed(BURST);
    CHECK(lean_purge_begin(&p, false)); /* from here on nothing was freed */
    lean_purge_end(&p);
    rise_and_fall(&p);
    CHECK(!lean_purge_begin(&p, false)); /* nothing was freed yet */
    lean_freed(BURST);
    CHECK(lean_purge_begin(&p, false));
    lean_add_resident(-(size_t)BURST); /* what a search gives back is no fall */
    lean_purge_end(&p);
    lean_freed(BURST);
    CHECK(!lean_purge_begin(&p, false));
}

/* Also what goes when the thread's caches are emptied for it. */
static void a_purge_tells_what_it_gave_back(void) {
    enum { COUNT = 5000, SIZE = 1000 };
    static char *blocks[COUNT];
    for (unsigned count = 50; count <= COUNT; count *= 10) {
        for (unsigned i = 0; i < count; i++) {
            CHECK((blocks[i] = A(malloc)(SIZE)));
            fill(blocks[i], SIZE, i);
        }
        for (unsigned i = 0; i < count; i++) A(free)(blocks[i]);
        size_t before = resident(), given = hakmem_purge();
        CHECK(given > 0 && given == before - resident());
    }
}

int main(int argc, char **argv) {
    (void)argc;
    under_lean(argv, (const char *const[][2]){{"HAKMEM_SS_LEAN_CPU_PERMILLE", "1000"}, {NULL}});
    RUN(a_purge_tells_what_it_gave_back);
    RUN(a_fall_counts_until_there_was_a_search);
    return 0;
}
