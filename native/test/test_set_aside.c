/* SS_CACHE_THREAD: empty SuperSlabs that a thread sets aside, takes again first, and gives back when it ends or memory is short. */
#include "counters.h"
#include "giving_back.h"

#include <pthread.h>
#include <sys/wait.h>

enum {
    ONE = 3 << 19,
    PER_THREAD = 2,
    FOR_ALL = 1
}; /* bytes of a block that has a SuperSlab to itself; SuperSlabs by the gates below */

/* A second thread that does what it is told. */
typedef struct {
    pthread_barrier_t gate;
    void (*what)(void);
} worker;

static void *work(void *argument) {
    worker *w = argument;
    A(free)(take(100)); /* or it had no cache, and nothing would tell of its end */
    for (;;) {
        pthread_barrier_wait(&w->gate);
        if (!w->what) return NULL;
        w->what();
        pthread_barrier_wait(&w->gate);
    }
}

static worker other;
static pthread_t other_id;

static void start_other(void) {
    pthread_barrier_init(&other.gate, NULL, 2);
    CHECK(pthread_create(&other_id, NULL, work, &other) == 0);
}
static void in_other(void (*what)(void)) {
    other.what = what;
    pthread_barrier_wait(&other.gate);
    pthread_barrier_wait(&other.gate);
}
static void end_other(void) {
    other.what = NULL;
    pthread_barrier_wait(&other.gate);
    CHECK(pthread_join(other_id, NULL) == 0);
    pthread_barrier_destroy(&other.gate);
}

static void nothing_at_hand(void) {
    hakmem_purge();
    CHECK(hakmem_check() == 1);
}

/* ---- how many ---- */

static void the_thread_then_all_then_the_kernel(void) {
    nothing_at_hand();
    long kept = counter("ss_cached"), own = counter("ss_cached_thread"), retired = counter("lean_retire");
    A(free)(take(5 << 21));
    CHECK(counter("ss_cached_thread") - own == PER_THREAD);
    CHECK(counter("ss_cached") - kept == PER_THREAD + FOR_ALL);
    CHECK(counter("lean_retire") - retired == 5 - PER_THREAD - FOR_ALL);
    size_t before = resident();
    CHECK(hakmem_purge() >= (PER_THREAD + FOR_ALL) << 21 && before - resident() >= (PER_THREAD + FOR_ALL) << 21);
}

static void page_runs_too(void) {
    enum { RUNS = 12 }; /* of half a SuperSlab */
    char *run[RUNS];
    nothing_at_hand();
    long own = counter("ss_cached_thread"), again = counter("ss_reuse_thread");
    for (int i = 0; i < RUNS; i++) run[i] = take(1 << 20);
    for (int i = 0; i < RUNS; i++) A(free)(run[i]);
    CHECK(counter("ss_cached_thread") - own == PER_THREAD);
    for (int i = 0; i < RUNS; i++) run[i] = take(1 << 20);
    CHECK(counter("ss_reuse_thread") - again == PER_THREAD);
    for (int i = 0; i < RUNS; i++) A(free)(run[i]);
}

/* ---- whose ---- */

static char *theirs[2], *mine;
static void take_two(void) { theirs[0] = take(ONE), theirs[1] = take(ONE); }
static void free_two(void) { A(free)(theirs[0]), A(free)(theirs[1]); }
static void take_one(void) { theirs[0] = take(ONE); }
static void free_one(void) { A(free)(theirs[0]); }

static void each_thread_takes_its_own_first(void) {
    nothing_at_hand();
    start_other();
    mine = take(ONE);
    in_other(take_two);
    char *was = mine, *were[2] = {theirs[0], theirs[1]};
    A(free)(mine);
    in_other(free_two);
    long again = counter("ss_reuse_thread"), made = counter("ss_new");
    in_other(take_one);
    CHECK(theirs[0] == were[0] || theirs[0] == were[1]);
    mine = take(ONE);
    CHECK(mine == was && counter("ss_reuse_thread") - again == 2);
    char *more = take(ONE); /* the other thread's second one, rather than one without pages */
    CHECK(more == were[0] || more == were[1]);
    CHECK(more != theirs[0] && counter("ss_reuse_thread") - again == 2 && counter("ss_new") == made);
    A(free)(more);
    A(free)(mine);
    in_other(free_one);
    end_other();
}

static void *take_and_free_one(void *unused) {
    A(free)(take(ONE));
    return unused;
}

static void a_thread_without_a_cache_sets_nothing_aside(void) {
    pthread_t id;
    nothing_at_hand();
    long kept = counter("ss_cached"), own = counter("ss_cached_thread");
    CHECK(pthread_create(&id, NULL, take_and_free_one, NULL) == 0 && pthread_join(id, NULL) == 0);
    CHECK(counter("ss_cached") - kept == FOR_ALL && counter("ss_cached_thread") == own);
}

static void a_thread_that_ends_leaves_them_to_all(void) {
    nothing_at_hand();
    start_other();
    in_other(take_two);
    long kept = counter("ss_cached"), retired = counter("lean_retire");
    in_other(free_two);
    CHECK(counter("ss_cached") - kept == 2 && counter("lean_retire") == retired);
    size_t before = resident();
    end_other();
    CHECK(counter("lean_retire") - retired == 2 - FOR_ALL && before - resident() >= ONE);
    long again = counter("ss_reuse"), own = counter("ss_reuse_thread");
    A(free)(take(ONE));
    CHECK(counter("ss_reuse") - again == 1 && counter("ss_reuse_thread") == own);
}

static void a_child_of_fork_may_use_what_others_set_aside(void) {
    nothing_at_hand();
    start_other();
    in_other(take_two);
    in_other(free_two);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        long again = counter("ss_reuse"), own = counter("ss_reuse_thread");
        char *a = take(ONE), *b = take(ONE);
        CHECK(counter("ss_reuse") - again == 2 && counter("ss_reuse_thread") == own);
        A(free)(a);
        A(free)(b);
        CHECK(counter("ss_reuse") - again == 2 && hakmem_purge() >= ONE && hakmem_check() == 1);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    end_other();
}

/* ---- above the target ---- */

static void above_the_target_nothing_is_set_aside(void) {
    nothing_at_hand();
    A(free)(take(ONE));
    long own = counter("ss_cached_thread"), retired = counter("lean_retire");
    char *live = take(101 << 20), *small[200];
    for (int i = 0; i < 200; i++) small[i] = take(30000);
    for (int i = 0; i < 200; i++) A(free)(small[i]); /* which looks for memory to give back */
    CHECK(counter("lean_retire") - retired >= 1); /* the one that was set aside */
    retired = counter("lean_retire");
    A(free)(take(ONE));
    CHECK(counter("ss_cached_thread") == own && counter("lean_retire") - retired >= 1);
    A(free)(live);
}

int main(int argc, char **argv) {
    (void)argc;
    under_lean(argv, (const char *const[][2]){{"HAKMEM_SS_CACHE_THREAD", "2"},
                                              {"HAKMEM_SS_CACHE_GLOBAL", "1"},
                                              {"HAKMEM_SS_EMPTY_RESERVE", "0"},
                                              {"HAKMEM_SS_LEAN_CPU_PERMILLE", "1000"},
                                              {"HAKMEM_SS_LEAN_CACHE_IDLE_MS", "0"},
                                              {NULL, NULL}});
    char *small = take(100); /* its SuperSlab does not become empty */
    RUN(the_thread_then_all_then_the_kernel);
    RUN(page_runs_too);
    RUN(each_thread_takes_its_own_first);
    RUN(a_thread_without_a_cache_sets_nothing_aside);
    RUN(a_thread_that_ends_leaves_them_to_all);
    RUN(a_child_of_fork_may_use_what_others_set_aside);
    RUN(above_the_target_nothing_is_set_aside);
    A(free)(small);
    return 0;
}
