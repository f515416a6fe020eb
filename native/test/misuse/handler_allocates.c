// expect: by flush "double free"
// A second free that shows where the allocator holds locks, and a handler of SIGABRT that allocates, as those that print a stack do.
#include "misuse.h"

#include <signal.h>

static void *make_and_drop(void *unused) {
    void *p = malloc(300);
    if (!malloc(300)) exit(3); /* lives on, and with it the slab */
    free(p);
    return p;
}

static void report(int signal) {
    static void *blocks[20000];
    (void)signal;
    for (size_t i = 0; i < 20000; i++) blocks[i] = malloc(300);
    for (size_t i = 0; i < 20000; i++) free(blocks[i]);
}

int main(void) {
    alarm(20);
    signal(SIGABRT, report);
    free(malloc(300));
    free(run_thread(make_and_drop, NULL));
    return survived();
}
