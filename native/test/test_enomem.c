/* Out of memory: NULL and errno, every block still whole, and a heap that works again once something was freed.
 * The limit holds from the start of the process, so each case runs in a fresh one. */
#include "test.h"

#include <sys/resource.h>
#include <sys/wait.h>

static const struct {
    const char *name;
    int resource;
    size_t limit_mb, size;
    unsigned percent; /* of the limit that blocks can have, at least */
} cases[] = {
    {"tiny", RLIMIT_AS, 256, 64, 70},
    {"small", RLIMIT_AS, 256, 1000, 80},
    {"medium", RLIMIT_AS, 512, 20000, 80},
    {"large", RLIMIT_AS, 512, 300000, 80},
    {"above_1_mib", RLIMIT_AS, 512, (1 << 20) + 1, 88},
    {"above_2_mib", RLIMIT_AS, 512, (2 << 20) + 1, 88},
    {"huge", RLIMIT_AS, 512, 20 << 20, 80},
    {"tiny_data", RLIMIT_DATA, 128, 64, 70},
    {"large_data", RLIMIT_DATA, 128, 300000, 70},
};

typedef struct chain {
    struct chain *next;
    uint32_t key;
} chain;

/* Only the ends of a block are written, so that huge ones do not need real memory. */
static void mark(chain *block, size_t size, chain *next, uint32_t key) {
    *block = (chain){next, key};
    ((unsigned char *)block)[size - 1] = (unsigned char)key;
}

static bool is_marked(const chain *block, size_t size, uint32_t key) {
    return block->key == key && ((const unsigned char *)block)[size - 1] == (unsigned char)key;
}

static chain *take_all(size_t size, size_t limit_mb, uint32_t *count) {
    chain *all = NULL;
    for (*count = 0; (size_t)*count * size <= limit_mb << 20; ++*count) {
        errno = 0;
        chain *block = A(malloc)(size);
        if (!block) {
            CHECK(errno == ENOMEM);
            return all;
        }
        mark(block, size, all, *count);
        all = block;
    }
    CHECK(!"a heap larger than its limit");
    return NULL;
}

static void everything_else_fails_too(chain *all, size_t size) {
    size_t more = size > 1 << 20 ? size : 64 << 20;
    void *p = all;
    errno = 0;
    CHECK(A(calloc)(1, more) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(A(realloc)(all, (size_t)1 << 29) == NULL && errno == ENOMEM);
    CHECK(A(posix_memalign)(&p, 4096, more) == ENOMEM && p == (void *)all);
    errno = 0;
    CHECK(A(aligned_alloc)(64, more) == NULL && errno == ENOMEM);
}

/* A block may be asked to become smaller when there is no other place for it. */
static chain *shrink_one(chain *all, uint32_t *count) {
    chain *rest = all->next, *p;
    errno = 0;
    p = A(realloc)(all, sizeof *p);
    CHECK(p && errno == 0 && p->next == rest && p->key == --*count);
    A(free)(p);
    return rest;
}

/* What was just freed serves other sizes too, wherever caches keep it. */
static chain *use_otherwise(chain *all, size_t size, uint32_t *count) {
    size_t bytes = 0;
    for (; bytes < 3 << 16; bytes += size) {
        chain *next = all->next;
        A(free)(all);
        all = next;
        --*count;
    }
    for (size_t other = 24; other <= bytes / 4; other *= 3) {
        void *p = A(malloc)(other);
        CHECK(p);
        A(free)(p);
    }
    return all;
}

static void give_back(chain *all, size_t size, uint32_t count) {
    while (all) {
        chain *next = all->next;
        count--;
        CHECK(is_marked(all, size, count));
        A(free)(all);
        all = next;
    }
    CHECK(count == 0);
}

static void exhaust(size_t size, size_t limit_mb, unsigned percent) {
    uint32_t first, second;
    chain *all = take_all(size, limit_mb, &first);
    printf("# %u blocks of %zu B, %zu %% of the limit\n", first, size, first * size * 100 / (limit_mb << 20));
    CHECK(first * size * 100 >= (limit_mb << 20) * percent);
    everything_else_fails_too(all, size);
    uint32_t left = first;
    all = shrink_one(all, &left);
    all = use_otherwise(all, size, &left);
    give_back(all, size, left);
    all = take_all(size, limit_mb, &second);
    CHECK(second >= first - first / 4);
    give_back(all, size, second);
    CHECK(!hakmem_check || hakmem_check() == 1);
}

static void run_limited(const char *self, const char *name, int resource, size_t limit_mb) {
    int status;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        struct rlimit limit = {limit_mb << 20, limit_mb << 20};
        CHECK(setrlimit(resource, &limit) == 0);
        execl(self, self, name, (char *)NULL);
        _exit(127);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fprintf(stderr, "not ok: case %s under a limit of %zu MiB ended with wait status 0x%x\n", name, limit_mb, (unsigned)status);
        exit(1);
    }
    printf("ok %s\n", name);
    fflush(stdout);
}

int main(int argc, char **argv) {
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (argc < 2) run_limited("/proc/self/exe", cases[i].name, cases[i].resource, cases[i].limit_mb);
        else if (strcmp(argv[1], cases[i].name) == 0) exhaust(cases[i].size, cases[i].limit_mb, cases[i].percent);
    }
    return 0;
}
