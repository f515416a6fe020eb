/* Blocks that outlive their threads, cross them, or are made while a thread dies. */
#include "test.h"

#include "hakmem.h"

#include <dlfcn.h>
#include <pthread.h>

enum { THREADS = 4, BLOCKS = 2000 };

typedef struct {
    unsigned char *block;
    size_t size;
    uint32_t key;
} held;

static held make(uint32_t *state) {
    uint32_t r = next_random(state);
    size_t size = r % 64 ? 1 + (r >> 8) % 2000 : 1 + (r >> 8) % 200000;
    held made = {A(malloc)(size), size, r};
    CHECK(made.block);
    fill(made.block, size, r);
    return made;
}

static void drop(held *old) {
    if (!old->block) return;
    CHECK(is_filled(old->block, old->size, old->key));
    A(free)(old->block);
    old->block = NULL;
}

static void start(pthread_t *ids, int count, void *(*work)(void *), void *arguments, size_t stride) {
    for (int i = 0; i < count; i++) CHECK(pthread_create(&ids[i], NULL, work, (char *)arguments + (size_t)i * stride) == 0);
}

static void join(const pthread_t *ids, int count) {
    for (int i = 0; i < count; i++) CHECK(pthread_join(ids[i], NULL) == 0);
}

/* ---- the very first allocations of several threads at once ---- */

static pthread_barrier_t barrier;

static void *first_allocation(void *argument) {
    uint32_t state = *(uint32_t *)argument;
    pthread_barrier_wait(&barrier);
    held mine = make(&state);
    drop(&mine);
    return NULL;
}

static void first_allocations_at_once(void) {
    pthread_t ids[8];
    uint32_t seeds[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    pthread_barrier_init(&barrier, NULL, 8);
    start(ids, 8, first_allocation, seeds, sizeof *seeds);
    join(ids, 8);
    pthread_barrier_destroy(&barrier);
}

/* ---- every thread replaces blocks of a table that all share ---- */

static held shared[64];
static pthread_mutex_t shared_locks[64];

static void *exchange_blocks(void *argument) {
    uint32_t state = *(uint32_t *)argument;
    for (int i = 0; i < 20000; i++) {
        held mine = make(&state), old;
        unsigned slot = next_random(&state) % 64;
        pthread_mutex_lock(&shared_locks[slot]);
        old = shared[slot];
        shared[slot] = mine;
        pthread_mutex_unlock(&shared_locks[slot]);
        drop(&old);
    }
    return NULL;
}

static void blocks_are_freed_by_other_threads(void) {
    pthread_t ids[THREADS];
    uint32_t seeds[THREADS] = {11, 22, 33, 44};
    for (int i = 0; i < 64; i++) pthread_mutex_init(&shared_locks[i], NULL);
    start(ids, THREADS, exchange_blocks, seeds, sizeof *seeds);
    join(ids, THREADS);
    for (int i = 0; i < 64; i++) drop(&shared[i]);
}

/* ---- threads end and leave blocks behind ---- */

static held left[THREADS][BLOCKS];

static void *leave_blocks(void *argument) {
    held *mine = argument;
    uint32_t state = (uint32_t)(uintptr_t)mine | 1;
    for (int i = 0; i < BLOCKS; i++) mine[i] = make(&state);
    for (int i = 0; i < BLOCKS; i += 3) drop(&mine[i]);
    return NULL;
}

static void *free_left_blocks(void *argument) {
    for (int i = 0; i < BLOCKS; i++) drop((held *)argument + i);
    return NULL;
}

static void blocks_outlive_their_threads(void) {
    pthread_t ids[THREADS];
    for (int round = 0; round < 5; round++) {
        start(ids, THREADS, leave_blocks, left, sizeof *left);
        join(ids, THREADS);
        if (round % 2)
            for (int i = 0; i < THREADS; i++) free_left_blocks(left[i]);
        else start(ids, THREADS, free_left_blocks, left, sizeof *left), join(ids, THREADS);
    }
}

/* ---- realloc and usable size of another thread's block ---- */

static void *grow_block(void *argument) {
    held *theirs = argument;
    CHECK(A(malloc_usable_size)(theirs->block) >= theirs->size);
    theirs->block = A(realloc)(theirs->block, theirs->size * 3);
    CHECK(theirs->block && is_filled(theirs->block, theirs->size, theirs->key));
    return NULL;
}

static void blocks_grow_in_other_threads(void) {
    uint32_t state = 77;
    for (int i = 0; i < 100; i++) {
        held mine = make(&state);
        pthread_t id;
        start(&id, 1, grow_block, &mine, 0);
        join(&id, 1);
        drop(&mine);
    }
}

/* ---- destructors of thread-specific data run around, and after, the allocator's own ---- */

/* Rounds of destructors that a destructor asks for. ThreadSanitizer ends its view of a thread in the fourth and last one, and the
 * allocator may have one of its own to come after these. */
#ifdef __SANITIZE_THREAD__
enum { MORE_ROUNDS = 1 };
#else
enum { MORE_ROUNDS = 2 };
#endif

static pthread_key_t keys[3];
static int destructor_calls;
static pthread_mutex_t destructor_lock = PTHREAD_MUTEX_INITIALIZER;

typedef struct {
    int rounds_left;
    unsigned key;
    held block;
} thread_data;

static void destroy(void *argument) {
    thread_data *data = argument;
    uint32_t state = 99 + data->key;
    drop(&data->block);
    held more[50];
    for (int i = 0; i < 50; i++) more[i] = make(&state);
    for (int i = 0; i < 50; i++) drop(&more[i]);
    pthread_mutex_lock(&destructor_lock);
    destructor_calls++;
    pthread_mutex_unlock(&destructor_lock);
    if (data->rounds_left-- > 0) { /* asks for one more round, as libraries do that must come last */
        data->block = make(&state);
        pthread_setspecific(keys[data->key], data);
    } else {
        A(free)(data);
    }
}

static void *use_thread_data(void *argument) {
    uint32_t state = *(uint32_t *)argument;
    for (unsigned i = 0; i < 3; i++) {
        thread_data *data = A(malloc)(sizeof *data);
        *data = (thread_data){MORE_ROUNDS, i, make(&state)};
        pthread_setspecific(keys[i], data);
    }
    return NULL;
}

static void destructors_allocate(void) {
    pthread_t ids[THREADS];
    uint32_t seeds[THREADS] = {5, 6, 7, 8};
    for (int i = 0; i < 3; i++) CHECK(pthread_key_create(&keys[i], destroy) == 0);
    for (int round = 0; round < 20; round++) {
        start(ids, THREADS, use_thread_data, seeds, sizeof *seeds);
        join(ids, THREADS);
    }
    CHECK(destructor_calls == 20 * THREADS * 3 * (1 + MORE_ROUNDS));
    for (int i = 0; i < 3; i++) pthread_key_delete(keys[i]);
}

/* ---- many short threads must not leak their caches ---- */

static void *live_shortly(void *argument) {
    uint32_t state = *(uint32_t *)argument;
    held mine[200];
    for (int i = 0; i < 200; i++) mine[i] = make(&state);
    for (int i = 0; i < 200; i++) drop(&mine[i]);
    return NULL;
}

static void short_threads_leak_nothing(void) {
    uint32_t seed = 123;
    pthread_t ids[2];
    long before = 0;
    for (int i = 0; i < 800; i++) {
        start(ids, 2, live_shortly, &seed, 0);
        join(ids, 2);
        if (i == 50) before = resident_kb();
    }
    CHECK(resident_kb() - before < 64 << 10);
}

#ifndef HAK_PREFIXED /* libc's own blocks are not the allocator's there */
/* The message of dlerror, among others, is freed when no destructor of thread-specific data runs any more. */
static void *fail_to_load(void *argument) {
    CHECK(!dlopen(argument, RTLD_NOW));
    return NULL;
}

#pragma weak hakmem_stats_get
static size_t metadata(void) {
    hakmem_stats now = {0};
    hakmem_stats_get(&now);
    return now.metadata;
}

static void frees_after_the_destructors_leave_nothing(void) {
    pthread_t id;
    size_t before = 0;
    for (int i = 0; i < 100; i++) {
        start(&id, 1, fail_to_load, "/there/is/no/such/library.so", 0);
        join(&id, 1);
        if (i == 20) before = metadata();
    }
    CHECK(metadata() == before);
}
#endif

int main(void) {
    RUN(first_allocations_at_once);
    RUN(blocks_are_freed_by_other_threads);
    RUN(blocks_outlive_their_threads);
    RUN(blocks_grow_in_other_threads);
    RUN(destructors_allocate);
    RUN(short_threads_leak_nothing);
#ifndef HAK_PREFIXED
    if (hakmem_check) RUN(frees_after_the_destructors_leave_nothing);
#endif
    return 0;
}
