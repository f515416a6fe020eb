/* Lean: what a thread leaves unused in its caches is taken back by others, whether it sleeps on or wakes up that very instant. */
#include "counters.h"
#include "giving_back.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

#pragma weak hakmem_stats_json
#pragma weak hakmem_purge

enum { SIZES = 4, BLOCKS = 400, THREADS = 4, SHARED = 64, MINE = 40 };
#ifdef __SANITIZE_THREAD__
enum { ROUNDS = 80 };
#else
enum { ROUNDS = 1000 };
#endif
static const size_t sizes[SIZES] = {32, 200, 600, 3000};

static size_t live(void) {
    hakmem_stats now;
    hakmem_purge(); /* the caller's own caches */
    hakmem_stats_get(&now);
    return now.live;
}

/* Misses, which is when a thread looks after the others. */
static void some_activity(void) {
    void *blocks[32];
    for (int i = 0; i < 32; i++) CHECK((blocks[i] = A(malloc)(5000)));
    for (int i = 0; i < 32; i++) A(free)(blocks[i]);
}

static pthread_barrier_t meeting;

static void *fill_caches(void *argument) {
    (void)argument;
    static void *blocks[SIZES][BLOCKS];
    for (int s = 0; s < SIZES; s++)
        for (int i = 0; i < BLOCKS; i++) CHECK((blocks[s][i] = A(malloc)(sizes[s])));
    for (int s = 0; s < SIZES; s++)
        for (int i = 0; i < BLOCKS; i++) A(free)(blocks[s][i]);
    pthread_barrier_wait(&meeting); /* idle */
    pthread_barrier_wait(&meeting);
    for (int s = 0; s < SIZES; s++) { /* and awake again */
        for (int i = 0; i < BLOCKS; i++) {
            CHECK((blocks[s][i] = A(malloc)(sizes[s])));
            fill(blocks[s][i], sizes[s], (uint32_t)i);
        }
        for (int i = 0; i < BLOCKS; i++) {
            CHECK(is_filled(blocks[s][i], sizes[s], (uint32_t)i));
            A(free)(blocks[s][i]);
        }
    }
    return NULL;
}

static void await_return_to(size_t most) {
    int looks = 0;
    do {
        sleep_ms(10);
        some_activity();
    } while (++looks < 500 && (looks < 3 || live() > most));
    CHECK(live() <= most);
}

static void what_an_idle_thread_holds_is_taken_back(void) {
    pthread_t id;
    CHECK(pthread_barrier_init(&meeting, NULL, 2) == 0);
    some_activity();
    size_t most = live();
    CHECK(pthread_create(&id, NULL, fill_caches, NULL) == 0);
    pthread_barrier_wait(&meeting);
    for (int s = 0; s < SIZES; s++) most += 2 * (sizes[s] + sizes[s] / 8 + 16); /* per class the first two */
    most += 2048; /* what the C library keeps for a thread */
#ifndef __SANITIZE_THREAD__
    pid_t child = fork(); /* which has the caches, and not the thread */
    if (child == 0) {
        await_return_to(most);
        CHECK(hakmem_check() == 1);
        _exit(0);
    }
    int status;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
#endif
    await_return_to(most);
    CHECK(counted("idle_taken") != 0);
    pthread_barrier_wait(&meeting);
    CHECK(pthread_join(id, NULL) == 0);
    pthread_barrier_destroy(&meeting);
}

/* Threads that pause again and again, each for itself, so that others reach for their lists just as they go on. */
typedef struct {
    _Atomic(unsigned char *) block;
} place;
static place shared[SHARED];

static size_t size_of(uint32_t key) { return sizes[key % SIZES] + key % 16; }

static unsigned char *made(uint32_t key) {
    unsigned char *p = A(malloc)(size_of(key) + sizeof key);
    CHECK(p);
    memcpy(p, &key, sizeof key);
    fill(p + sizeof key, size_of(key), key);
    return p;
}

static void checked_free(unsigned char *p) {
    uint32_t key;
    if (!p) return;
    memcpy(&key, p, sizeof key);
    CHECK(is_filled(p + sizeof key, size_of(key), key));
    A(free)(p);
}

static void *pause_and_go_on(void *seed) {
    uint32_t state = (uint32_t)(uintptr_t)seed * 7919 + 1;
    unsigned char *mine[MINE] = {0};
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t r = next_random(&state);
        for (unsigned i = 0; i < 10 + r % 200; i++) {
            uint32_t key = next_random(&state);
            unsigned char **at = &mine[key % MINE];
            checked_free(*at);
            *at = made(key);
            if (key >> 28 == 0) checked_free(atomic_exchange(&shared[key % SHARED].block, made(key >> 3)));
        }
        if (r >> 25 == 0) sleep_ms(40); /* several ticks of the coarse clock */
    }
    for (int i = 0; i < MINE; i++) checked_free(mine[i]);
    return NULL;
}

static void threads_wake_up_while_others_take(void) {
    pthread_t ids[THREADS];
    long taken = counted("idle_taken");
    for (uintptr_t i = 0; i < THREADS; i++) CHECK(pthread_create(&ids[i], NULL, pause_and_go_on, (void *)i) == 0);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(ids[i], NULL) == 0);
    for (int i = 0; i < SHARED; i++) checked_free(atomic_exchange(&shared[i].block, NULL));
    CHECK(taken < 0 || counted("idle_taken") > taken);
}

int main(int argc, char **argv) {
    (void)argc;
    if (!hakmem_stats_get) {
        SKIP(what_an_idle_thread_holds_is_taken_back, "not hakmem");
        return 0;
    }
    under_lean(argv, (const char *const[][2]){{"HAKMEM_SS_LEAN_CACHE_IDLE_MS", "1"}, {NULL}});
    RUN(what_an_idle_thread_holds_is_taken_back);
    RUN(threads_wake_up_while_others_take);
    return 0;
}
