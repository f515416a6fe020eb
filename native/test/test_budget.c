/* The CPU budget of Lean (SS_LEAN_CPU_PERMILLE) holds where blocks that are SuperSlabs come and go, too. */
#include "counters.h"
#include "giving_back.h"

enum { AT_MOST = 100000 };

static void replace_till_the_budget_is_spent(size_t size) {
    long before = counter("early_cpu_budget");
    for (int i = 0; i < AT_MOST && counter("early_cpu_budget") == before; i++) A(free)(take(size));
    CHECK(counter("early_cpu_budget") > before);
}

static void what_is_beyond_it_stays(size_t size) {
    hakmem_purge();
    replace_till_the_budget_is_spent(size);
    long kept = counter("ss_cached");
    for (int i = 0; i < 10; i++) A(free)(take(size));
    CHECK(counter("ss_cached") > kept && resident() >= size);
    CHECK(hakmem_check() == 1);
    hakmem_purge();
    CHECK(resident() < size);
}

static void of_a_superslab(void) { what_is_beyond_it_stays(3 << 19); }
static void of_several(void) { what_is_beyond_it_stays(4 << 20); }

int main(int argc, char **argv) {
    (void)argc;
    under_lean(argv, (const char *const[][2]){{"HAKMEM_SS_LEAN_CPU_PERMILLE", "1"}, {NULL}});
    RUN(of_a_superslab);
    RUN(of_several);
    return 0;
}
