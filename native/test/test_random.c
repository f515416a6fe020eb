/* Random operations against a shadow heap: every block is filled with a pattern of its own and checked before it changes.
 *   test_random [seed] [operations] [threads]     a failure names the seed */
#include "test.h"

#include <pthread.h>
#include <stdatomic.h>

enum { SLOTS = 500, EXCHANGES = 32, MAX_THREADS = 16 };

typedef struct {
    unsigned char *block;
    size_t size;
    uint32_t key;
} shadow;

typedef struct {
    pthread_t id;
    uint32_t state;
    long operations;
    shadow slots[SLOTS];
} actor;

static actor actors[MAX_THREADS];
static _Atomic(shadow *) exchange[EXCHANGES]; /* blocks on their way from thread to thread */
static uint32_t seed = 20261121;

#define EXPECT(condition)                                                                                     \
    do {                                                                                                      \
        if (!(condition)) {                                                                                   \
            fprintf(stderr, "not ok: %s:%d: %s (seed %u)\n", __FILE__, __LINE__, #condition, (unsigned)seed); \
            abort();                                                                                          \
        }                                                                                                     \
    } while (0)

/* Every power of two up to 1 MiB is as likely as any other; one block in 2,000 is larger. */
static size_t random_size(uint32_t *state) {
    uint32_t r = next_random(state);
    if (r % 2000 == 0) return next_random(state) % (12u << 20);
    return next_random(state) & ((UINT32_C(2) << (r >> 8) % 20) - 1);
}

static void settle(shadow *own, void *block, size_t size, uint32_t key) {
    EXPECT(block != NULL && is_aligned(block, 16));
    EXPECT(A(malloc_usable_size)(block) >= size);
    *own = (shadow){block, size, key};
    fill(block, size, key);
}

static void allocate(actor *self, shadow *own) {
    uint32_t kind = next_random(&self->state) % 8, key = next_random(&self->state);
    size_t size = random_size(&self->state);
    if (kind == 0) {
        void *p = A(calloc)(1, size);
        EXPECT(p && is_zero(p, size));
        settle(own, p, size, key);
    } else if (kind == 1) {
        size_t alignment = (size_t)8 << next_random(&self->state) % 15;
        void *p = NULL;
        EXPECT(A(posix_memalign)(&p, alignment, size) == 0 && is_aligned(p, alignment));
        settle(own, p, size, key);
    } else {
        settle(own, A(malloc)(size), size, key);
    }
}

static void verify(const shadow *own) { EXPECT(is_filled(own->block, own->size, own->key)); }

static void release(shadow *own) {
    verify(own);
    A(free)(own->block);
    own->block = NULL;
}

static void resize(actor *self, shadow *own) {
    size_t size = random_size(&self->state) | 1, both = size < own->size ? size : own->size;
    verify(own);
    unsigned char *p = A(realloc)(own->block, size);
    EXPECT(p && is_filled(p, both, own->key));
    settle(own, p, size, own->key + 1);
}

/* Puts a block where any thread may take it, and takes (and frees) what lies there. */
static void pass_on(actor *self, shadow *own) {
    shadow *parcel = A(malloc)(sizeof *parcel);
    EXPECT(parcel);
    *parcel = *own;
    own->block = NULL;
    parcel = atomic_exchange(&exchange[next_random(&self->state) % EXCHANGES], parcel);
    if (!parcel) return;
    release(parcel);
    A(free)(parcel);
}

static void *act(void *argument) {
    actor *self = argument;
    for (long i = 0; i < self->operations; i++) {
        uint32_t r = next_random(&self->state);
        shadow *own = &self->slots[r % SLOTS];
        if (!own->block) allocate(self, own);
        else if (r >> 28 < 2) resize(self, own);
        else if (r >> 28 < 4) pass_on(self, own);
        else release(own);
        if (i % 65536 == 65535) A(malloc_trim)(0);
    }
    return NULL;
}

static void play(int threads, long operations) {
    for (int i = 0; i < threads; i++) {
        actors[i].state = (seed + (uint32_t)i * 7919u) | 1;
        actors[i].operations = operations / threads;
        EXPECT(pthread_create(&actors[i].id, NULL, act, &actors[i]) == 0);
    }
    for (int i = 0; i < threads; i++) EXPECT(pthread_join(actors[i].id, NULL) == 0);
    CHECK(!hakmem_check || hakmem_check() == 1);
    for (int i = 0; i < threads; i++)
        for (int k = 0; k < SLOTS; k++)
            if (actors[i].slots[k].block) release(&actors[i].slots[k]);
    for (int i = 0; i < EXCHANGES; i++) {
        shadow *parcel = atomic_exchange(&exchange[i], NULL);
        if (!parcel) continue;
        release(parcel);
        A(free)(parcel);
    }
}

static long operations = 60000;

static void one_thread(void) { play(1, operations); }
static void four_threads(void) { play(4, operations); }

int main(int argc, char **argv) {
    if (argc > 1) seed = (uint32_t)strtoul(argv[1], NULL, 10);
    if (argc > 2) operations = strtol(argv[2], NULL, 10);
    if (argc > 3) {
        play(argc > 3 ? (int)strtol(argv[3], NULL, 10) % (MAX_THREADS + 1) : 1, operations);
        return 0;
    }
    RUN(one_thread);
    RUN(four_threads);
    return 0;
}
