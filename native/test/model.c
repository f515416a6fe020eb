/* Plays a script from standard input against a shadow heap; tests/test_model.py writes the scripts. A line is one operation:
 *
 *   thread operation first count size alignment
 *
 * The operation is done by the named thread (0..7, started when first named, one at a time, so a script always plays the same way)
 * on slots first, first + 1, ... first + count - 1 (modulo their number). Operations: m malloc, c calloc, a posix_memalign,
 * r realloc, f free, v verify, t trim, e end of the thread, k a forked child frees everything. m, c and a skip slots in use, r, f and
 * v skip empty ones. Sizes grow by one 16th from slot to slot. */
#include "test.h"

#include <pthread.h>
#include <semaphore.h>
#include <sys/wait.h>

enum { SLOTS = 4096, THREADS = 8, MOST_BYTES = 256 << 20 };

typedef struct {
    char what;
    unsigned first, count;
    size_t size, alignment;
} operation;

static struct {
    unsigned char *block;
    size_t size;
    uint32_t key;
} slots[SLOTS];
static size_t live;
static uint32_t next_key;

static struct {
    pthread_t id;
    bool runs;
    sem_t todo, done;
    operation given;
} threads[THREADS];

static void verify(unsigned i) { CHECK(is_filled(slots[i].block, slots[i].size, slots[i].key)); }

static void settle(unsigned i, void *block, size_t size) {
    CHECK(block && is_aligned(block, 16) && A(malloc_usable_size)(block) >= size);
    live += size - slots[i].size;
    slots[i].block = block;
    slots[i].size = size;
    slots[i].key = ++next_key;
    fill(block, size, slots[i].key);
}

static void release(unsigned i) {
    verify(i);
    A(free)(slots[i].block);
    live -= slots[i].size;
    slots[i].block = NULL;
    slots[i].size = 0;
}

static void resize(unsigned i, size_t size) {
    verify(i);
    unsigned char *p = A(realloc)(slots[i].block, size);
    size_t both = size < slots[i].size ? size : slots[i].size;
    CHECK(p && is_filled(p, both & ~(size_t)7, slots[i].key));
    settle(i, p, size);
}

static void on_slot(const operation *o, unsigned i, size_t size) {
    void *p = NULL;
    if (o->what == 'f' && slots[i].block) release(i);
    if (o->what == 'v' && slots[i].block) verify(i);
    if (live + size > MOST_BYTES) return;
    if (o->what == 'r' && slots[i].block) resize(i, size ? size : 1);
    if (slots[i].block) return;
    if (o->what == 'm') settle(i, A(malloc)(size), size);
    if (o->what == 'c') {
        p = A(calloc)(size, 1);
        CHECK(p && is_zero(p, size));
        settle(i, p, size);
    }
    if (o->what == 'a') {
        CHECK(A(posix_memalign)(&p, o->alignment, size) == 0 && is_aligned(p, o->alignment));
        settle(i, p, size);
    }
}

static void free_all(void) {
    for (unsigned i = 0; i < SLOTS; i++)
        if (slots[i].block) release(i);
    CHECK(live == 0 && (!hakmem_check || hakmem_check() == 1));
}

static void free_all_in_a_child(void) {
    int status;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(60);
        free_all();
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

static void perform(const operation *o) {
    size_t size = o->size;
    if (o->what == 't') (void)A(malloc_trim)(0);
    if (o->what == 'k') free_all_in_a_child();
    for (unsigned i = 0; i < o->count && strchr("mcarfv", o->what); i++, size += o->size / 16)
        on_slot(o, (o->first + i) % SLOTS, size);
}

static void *serve(void *argument) {
    size_t k = (size_t)(uintptr_t)argument;
    for (;;) {
        sem_wait(&threads[k].todo);
        operation o = threads[k].given;
        if (o.what == 'e') return NULL;
        perform(&o);
        sem_post(&threads[k].done);
    }
}

static void have_done(unsigned k, operation o) {
    if (!threads[k].runs && o.what == 'e') return;
    if (!threads[k].runs) CHECK(pthread_create(&threads[k].id, NULL, serve, (void *)(uintptr_t)k) == 0);
    threads[k].runs = o.what != 'e';
    threads[k].given = o;
    sem_post(&threads[k].todo);
    if (o.what == 'e') CHECK(pthread_join(threads[k].id, NULL) == 0);
    else sem_wait(&threads[k].done);
}

int main(void) {
    unsigned k;
    operation o;
    for (k = 0; k < THREADS; k++) CHECK(sem_init(&threads[k].todo, 0, 0) == 0 && sem_init(&threads[k].done, 0, 0) == 0);
    while (scanf("%u %c %u %u %zu %zu", &k, &o.what, &o.first, &o.count, &o.size, &o.alignment) == 6) {
        CHECK(k < THREADS && o.count <= SLOTS);
        if (k == 0) perform(&o);
        else have_done(k, o);
        CHECK(!hakmem_check || hakmem_check() == 1);
    }
    CHECK(feof(stdin));
    free_all();
    for (k = 1; k < THREADS; k++) have_done(k, (operation){.what = 'e'});
    CHECK(!hakmem_check || hakmem_check() == 1);
    return 0;
}
