/* Cancellation: malloc, free and fork are no points of it, whatever Lean or a live page open and read meanwhile. */
#include "giving_back.h"

#include <pthread.h>
#include <sys/wait.h>

enum { BLOCKS = 60000 };

static bool got_through;

static void *use_the_heap(void *unused) {
    static char *blocks[BLOCKS];
    CHECK(!pthread_cancel(pthread_self())); /* acts at the first point */
    for (unsigned i = 0; i < BLOCKS; i++) CHECK((blocks[i] = A(malloc)(500 + i % 200)));
    for (unsigned i = 0; i < BLOCKS; i++) A(free)(blocks[i]);
    pid_t child = fork();
    if (child == 0) exit(!A(malloc)(100)); /* takes its live page along */
    got_through = child > 0;
    pthread_testcancel();
    return unused;
}

static void a_cancelled_thread_gets_through_the_heap(void) {
    alarm(60); /* a thread that ends within the allocator leaves its locks behind */
    for (unsigned i = 0; i < 3; i++) {
        pthread_t thread;
        void *result;
        int status;
        got_through = false;
        CHECK(!pthread_create(&thread, NULL, use_the_heap, NULL));
        CHECK(!pthread_join(thread, &result));
        CHECK(result == PTHREAD_CANCELED && got_through);
        CHECK(wait(&status) > 0 && status == 0);
    }
}

int main(int argc, char **argv) {
    (void)argc;
    under_lean(argv, (const char *const[][2]){{"HAKMEM_SS_LEAN_CPU_PERMILLE", "1000"}, {"HAKMEM_STATS_LIVE", "/tmp"}, {NULL}});
    RUN(a_cancelled_thread_gets_through_the_heap);
    return 0;
}
