/* The depot: what one thread frees another gets whole, eight chains a class and no more; what lies there is known to be free, and goes back. */
#include "test.h"

#include "classes.h"
#include "depot.h"
#include "lean.h"
#include "misuse.h"
#include "slab.h"

#include <pthread.h>
#include <sys/wait.h>

enum { SIZE = 64, BLOCKS = 6000 };
static void *blocks[BLOCKS];
static unsigned cls;

static void allocate_all(void) {
    for (unsigned i = 0; i < BLOCKS; i++) {
        CHECK((blocks[i] = A(malloc)(SIZE)));
        fill(blocks[i], SIZE, i);
    }
}

static void free_all(void) {
    for (unsigned i = 0; i < BLOCKS; i++) {
        CHECK(is_filled(blocks[i], SIZE, i));
        A(free)(blocks[i]);
    }
}

static void chains_lie_there_up_to_a_limit(void) {
    allocate_all();
    CHECK(depot_blocks(cls) == 0);
    free_all();
    size_t there = depot_blocks(cls), found = 0;
    size_t most = (size_t)DEPOT_CHAINS * slab_cap(cls, PRESSURE_NONE);
    CHECK(lean_releases() ? there == 0 : there > 0 && there <= most);
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (!depot_holds(blocks[i], cls)) continue;
        found++;
        CHECK(!HAK_CHECKS || misuse_is_free(blocks[i], cls));
    }
    CHECK(found <= there && there - found < 128); /* a refill brings more than was asked for */
}

static void *take_what_lies_there(void *unused) {
    size_t before = depot_blocks(cls);
    allocate_all();
    CHECK(lean_releases() || (before > 0 && depot_blocks(cls) == 0));
    return unused;
}

static void another_thread_takes_them(void) {
    pthread_t thread;
    CHECK(!pthread_create(&thread, NULL, take_what_lies_there, NULL));
    CHECK(!pthread_join(thread, NULL));
    free_all();
}

static void a_child_of_fork_has_them_too(void) {
#ifndef __SANITIZE_THREAD__
    int status;
    size_t there = depot_blocks(cls);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK(depot_blocks(cls) == there);
        CHECK(take_what_lies_there(NULL) == NULL);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK(depot_blocks(cls) == there);
#endif
}

static void a_drain_leaves_nothing(void) {
    slab_drain_depot();
    CHECK(depot_blocks(cls) == 0 && !depot_holds(blocks[0], cls));
}

int main(void) {
    cls = hak_size_class[(SIZE + 15) / 16];
    RUN(chains_lie_there_up_to_a_limit);
    RUN(another_thread_takes_them);
    RUN(a_child_of_fork_has_them_too);
    RUN(a_drain_leaves_nothing);
    return 0;
}
