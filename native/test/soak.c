/* Minutes of everything at once: threads come and go, pass blocks to each other, and one set of blocks lives through it all.
 *
 *   soak [seconds] [threads]
 *
 * A round is a generation of threads. They replace blocks of the lasting set (a slot's size is for ever the same, so that what is
 * live at the end of a round never changes) and play with blocks that do not outlive the round. A few games are played in turn, so
 * that the highest peak comes early. Every block is checked before it changes, the heap after each round. The end is bad if the
 * resident memory drifts: the median of the last fifth of the rounds may exceed that of the third fifth by 1 % or 64 KB. */
#include "test.h"

#include <pthread.h>
#include <sys/wait.h>
#include <time.h>

enum { LASTING = 6000, SHELF = 256, GAMES = 8, OPERATIONS = 15000, MAX_THREADS = 64, MAX_ROUNDS = 1 << 20 };

typedef struct {
    pthread_mutex_t lock;
    unsigned char *block;
    size_t size;
    uint32_t key;
} slot;

static slot lasting[LASTING], shelf[SHELF];
static pthread_barrier_t everybody;
static uint32_t seed_of_game;
static long rss_kb[MAX_ROUNDS];

/* Every power of two is as likely as any other. */
static size_t random_size(uint32_t r, unsigned octaves) { return 1 + ((r >> 5) & ((UINT32_C(16) << r % octaves) - 1)); }

static unsigned char *made(size_t size, uint32_t key) {
    void *p = NULL;
    if (key % 8 == 0) p = A(calloc)(size, 1);
    else if (key % 8 == 1) CHECK(A(posix_memalign)(&p, (size_t)16 << (key >> 8) % 9, size) == 0);
    else p = A(malloc)(size);
    CHECK(p && (key % 8 != 0 || is_zero(p, size)));
    fill(p, size, key);
    return p;
}

static void replace(slot *s, size_t size, uint32_t key) {
    unsigned char *now = size ? made(size, key) : NULL;
    pthread_mutex_lock(&s->lock);
    slot old = *s;
    s->block = now;
    s->size = size;
    s->key = key;
    pthread_mutex_unlock(&s->lock);
    if (!old.block) return;
    CHECK(is_filled(old.block, old.size, old.key));
    A(free)(old.block);
}

static void resize(slot *s, size_t size) {
    pthread_mutex_lock(&s->lock);
    if (s->block) {
        size_t both = size < s->size ? size : s->size;
        s->block = A(realloc)(s->block, size);
        CHECK(s->block && is_filled(s->block, both & ~(size_t)7, s->key));
        s->size = size;
        fill(s->block, size, s->key);
    }
    pthread_mutex_unlock(&s->lock);
}

/* All threads at once hold their largest blocks: the peak of every round, lest a rare chance be the highest. */
static void peak(uint32_t key) {
    unsigned char *blocks[3];
    for (unsigned i = 0; i < 3; i++) blocks[i] = made((size_t)900000 << i, key + i);
    pthread_barrier_wait(&everybody);
    for (unsigned i = 0; i < 3; i++) {
        CHECK(is_filled(blocks[i], (size_t)900000 << i, key + i));
        A(free)(blocks[i]);
    }
}

static void *play(void *argument) {
    uint32_t state = (seed_of_game * 64 + (uint32_t)(uintptr_t)argument) * 7919 + 1;
    for (int i = 0; i < OPERATIONS; i++) {
        uint32_t r = next_random(&state), key = next_random(&state);
        slot *s = &lasting[r % LASTING], *passing = &shelf[r % SHELF];
        if (r >> 28 < 6) replace(s, s->size, key);
        else if (r >> 28 < 8) resize(passing, random_size(key, 12));
        else replace(passing, random_size(key, r % 97 ? 12 : 15), key);
        if (i == OPERATIONS / 2) peak(key);
    }
    return NULL;
}

static void play_round(uintptr_t threads, uint32_t game) {
    pthread_t ids[MAX_THREADS];
    seed_of_game = game;
    CHECK(pthread_barrier_init(&everybody, NULL, (unsigned)threads) == 0);
    for (uintptr_t i = 0; i < threads; i++) CHECK(pthread_create(&ids[i], NULL, play, (void *)i) == 0);
    for (uintptr_t i = 0; i < threads; i++) CHECK(pthread_join(ids[i], NULL) == 0);
    pthread_barrier_destroy(&everybody);
    for (int i = 0; i < SHELF; i++) replace(&shelf[i], 0, 0);
    CHECK(!hakmem_check || hakmem_check() == 1);
}

static void play_in_a_child(uintptr_t threads) {
    int status;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(300);
        play_round(threads, GAMES);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

static int by_size(const void *a, const void *b) {
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

static long median(long *values, size_t count) {
    qsort(values, count, sizeof *values, by_size);
    return values[count / 2];
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv) {
    double end = now() + (argc > 1 ? strtod(argv[1], NULL) : 600);
    uintptr_t threads = argc > 2 ? strtoul(argv[2], NULL, 10) : 4;
    uint32_t state = 20261121;
    size_t rounds = 0;
    CHECK(threads >= 1 && threads <= MAX_THREADS);
    for (int i = 0; i < SHELF; i++) pthread_mutex_init(&shelf[i].lock, NULL);
    for (int i = 0; i < LASTING; i++) {
        pthread_mutex_init(&lasting[i].lock, NULL);
        replace(&lasting[i], random_size(next_random(&state), 11), (uint32_t)i);
    }
    while ((now() < end || rounds < 5 * GAMES) && rounds < MAX_ROUNDS) {
        play_round(threads, (uint32_t)rounds % GAMES);
        rss_kb[rounds++] = resident_kb();
        if (rounds % 32 == 0) play_in_a_child(threads);
    }
    for (int i = 0; i < LASTING; i++) replace(&lasting[i], 0, 0);
    size_t window = rounds / 5;
    long first = median(rss_kb + 2 * window, window), last = median(rss_kb + rounds - window, window);
    long allowed = first / 100 > 64 ? first / 100 : 64;
    printf("%s soak: %zu rounds of %lu threads, %.1f M operations; RSS %ld KB, at the end %ld KB: drift %+ld KB, allowed %ld\n",
           last - first <= allowed ? "ok" : "FAILED", rounds, (unsigned long)threads,
           (double)rounds * (double)threads * OPERATIONS / 1e6, first, last, last - first, allowed);
    return last - first > allowed;
}
