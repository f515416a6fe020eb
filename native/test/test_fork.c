/* fork while other threads are inside the allocator: the child must find it unlocked and whole, and may fork again. */
#include "test.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

enum { THREADS = 3, FORKS = 20, INHERITED = 300, CHILD_SECONDS = 60 };

static atomic_bool stopping;
static char *inherited[INHERITED];

static size_t size_of(unsigned i) { return 1 + (i * 7919u) % (i % 20 ? 3000 : 300000); }

static void use_the_heap(uint32_t seed, int rounds) {
    char *mine[50] = {0};
    uint32_t keys[50] = {0}, state = seed;
    for (int i = 0; i < rounds; i++) {
        uint32_t r = next_random(&state);
        unsigned slot = r % 50;
        if (mine[slot]) {
            CHECK(is_filled(mine[slot], size_of(keys[slot]), keys[slot]));
            A(free)(mine[slot]);
        }
        keys[slot] = r >> 16;
        mine[slot] = A(malloc)(size_of(keys[slot]));
        CHECK(mine[slot]);
        fill(mine[slot], size_of(keys[slot]), keys[slot]);
    }
    for (int i = 0; i < 50; i++) A(free)(mine[i]);
}

static void *hammer(void *argument) {
    for (uint32_t seed = *(uint32_t *)argument; !atomic_load(&stopping); seed += 2) use_the_heap(seed | 1, 200);
    return NULL;
}

static void free_inherited(void) {
    for (unsigned i = 0; i < INHERITED; i++) {
        CHECK(is_filled(inherited[i], size_of(i), i));
        A(free)(inherited[i]);
    }
}

static void await(pid_t child) {
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    if (status != 0) fprintf(stderr, "the child's wait status is 0x%x%s\n", (unsigned)status, status == SIGALRM ? ": it hung" : "");
    CHECK(status == 0);
}

static void *allocate_in_child(void *argument) {
    use_the_heap(*(uint32_t *)argument, 300);
    return NULL;
}

/* Not under AddressSanitizer: a fork may catch the malloc of its own that a new thread needs inside its locks. */
static void use_the_heap_in_a_thread(uint32_t seed) {
#ifndef __SANITIZE_ADDRESS__
    pthread_t id;
    CHECK(pthread_create(&id, NULL, allocate_in_child, &seed) == 0 && pthread_join(id, NULL) == 0);
#else
    allocate_in_child(&seed);
#endif
}

/* What a child of a threaded program does: starts a thread, forks (whose child does the same), frees what it inherited. */
static _Noreturn void child(void) {
    for (int generation = 0;; generation++) {
        uint32_t seed = 40 + (uint32_t)generation;
        alarm(CHILD_SECONDS);
        use_the_heap(seed, 300);
        use_the_heap_in_a_thread(seed);
        pid_t grandchild = generation < 2 ? fork() : -1;
        CHECK(generation == 2 || grandchild >= 0);
        if (grandchild == 0) continue;
        if (grandchild > 0) await(grandchild);
        free_inherited();
        CHECK(!hakmem_check || hakmem_check() == 1);
        _exit(0);
    }
}

static void children_of_a_threaded_program(void) {
    pthread_t ids[THREADS];
    uint32_t seeds[THREADS] = {1, 1001, 2001};
    atomic_store(&stopping, false);
    for (unsigned i = 0; i < INHERITED; i++) {
        inherited[i] = A(malloc)(size_of(i));
        fill(inherited[i], size_of(i), i);
    }
    for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&ids[i], NULL, hammer, &seeds[i]) == 0);
    for (int i = 0; i < FORKS; i++) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) child();
        use_the_heap(7, 100);
        await(pid);
    }
    atomic_store(&stopping, true);
    for (int i = 0; i < THREADS; i++) pthread_join(ids[i], NULL);
    free_inherited();
}

static void fork_of_a_single_thread(void) {
    char *p = A(malloc)(100);
    fill(p, 100, 1);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(CHILD_SECONDS);
        CHECK(is_filled(p, 100, 1));
        A(free)(p);
        use_the_heap(3, 500);
        _exit(0);
    }
    await(pid);
    CHECK(is_filled(p, 100, 1));
    A(free)(p);
}

/* Handlers of other libraries, registered before the allocator's and after them, use the heap as glibc's lets them. */
static int handler_calls;

static void allocate_in_handler(void) {
    handler_calls++;
    use_the_heap(11, 300);
}

__attribute__((constructor(101))) static void register_before_the_allocator(void) {
    (void)pthread_atfork(allocate_in_handler, allocate_in_handler, allocate_in_handler);
}

static void handlers_around_fork_allocate(void) {
    CHECK(pthread_atfork(allocate_in_handler, allocate_in_handler, allocate_in_handler) == 0);
    handler_calls = 0;
    alarm(CHILD_SECONDS);
    children_of_a_threaded_program();
    alarm(0);
    CHECK(handler_calls == 4 * FORKS);
}

int main(void) {
    RUN(fork_of_a_single_thread);
    RUN(children_of_a_threaded_program);
    RUN(handlers_around_fork_allocate);
    return 0;
}
