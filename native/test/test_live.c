/* The live page: a second process reads in a file what the allocator does; fork makes a second file, exit removes the first, and
 * nothing is left of either gate's effect where it cannot work. Runs itself again with the gates set. */
#include "test.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

extern size_t hakmem_purge(void), hakmem_stats_json(char *buf, size_t size);

enum { UNIT = 1 << 16, SLAB = 2, RUN = 3, THREADS = 200, BLOCKS = 500, SIZE = 1000, CLASS_SIZE = 1024 };

static char folder[512];
static const char *page;

/* Of the text at the beginning: the number behind a name; behind `in`, if that is given. */
static uint64_t told(const char *in, const char *name) {
    char key[64];
    const char *at = in ? strstr(page, in) : page;
    snprintf(key, sizeof key, "\"%s\":", name);
    CHECK(at && (at = strstr(at, key)));
    return strtoull(at + strlen(key), NULL, 10);
}
static uint64_t word_at(size_t offset) {
    return __atomic_load_n((const uint64_t *)(const void *)(page + offset), __ATOMIC_ACQUIRE);
}

static const char *path_of(pid_t pid) {
    static char path[600];
    snprintf(path, sizeof path, "%s/hakmem.%ld", folder, (long)pid);
    return path;
}

static const char *open_page(pid_t pid) {
    struct stat st;
    int fd = open(path_of(pid), O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && fstat(fd, &st) == 0);
    const char *p = mmap(NULL, (size_t)st.st_size + (1 << 20), PROT_READ, MAP_SHARED, fd, 0);
    CHECK(p != MAP_FAILED && (st.st_mode & 0777) == 0600);
    close(fd);
    return p;
}

/* Units in a state, and the sum of the first figure of their words. */
static size_t units(unsigned state, unsigned cls, uint64_t *sum) {
    size_t found = 0, at = told("\"at\"", "words"), per = told(NULL, "superslab_units"), head = told(NULL, "head_words");
    *sum = 0;
    for (size_t u = 0, n = word_at(told("\"at\"", "shown")); u < n; u++) {
        uint64_t w = word_at(at + 8 * (u + (u / per + 1) * head));
        if ((w & 7) != state || (cls && (w >> 3 & 63) != cls)) continue;
        found++;
        *sum += w >> 25 & 0x1fff;
    }
    return found;
}

static uint64_t counted(const char *name) {
    size_t at = told("\"at\"", "counts") + told("\"at\"", "first_count"), step = told(NULL, "count_bytes"), index = 0;
    const char *from = strstr(page, "\"counters\":["), *to = strstr(from, name);
    CHECK(from && to);
    for (const char *s = from; s < to; s++) index += *s == ',';
    uint64_t total = 0;
    for (size_t b = 0; b < told(NULL, "count_blocks"); b++) total += word_at(at + b * step + 8 * index);
    return total;
}

static unsigned class_of(unsigned size) {
    const char *at = strstr(page, "\"sizes\":[") + 9;
    for (unsigned c = 0;; c++, at = strchr(at, ',') + 1)
        if (strtoul(at, NULL, 10) == size) return c;
}

static void what_the_allocator_does_shows_at_once(void) {
    static char *blocks[BLOCKS];
    uint64_t before, after, runs;
    CHECK(told(NULL, "pid") == (uint64_t)getpid() && strncmp(page, "{\"hakmem_live\":1,", 17) == 0);
    hakmem_purge();
    size_t had = units(RUN, 0, &runs);
    units(SLAB, class_of(CLASS_SIZE), &before);
    for (int i = 0; i < BLOCKS; i++) CHECK((blocks[i] = A(malloc)(SIZE)));
    char *large = A(malloc)(3 * UNIT - 100);
    units(SLAB, class_of(CLASS_SIZE), &after);
    CHECK(after >= before + BLOCKS && after < before + 2 * BLOCKS);
    CHECK(units(RUN, 0, &after) == had + 1 && after == runs + 3);
    A(free)(large);
    for (int i = 0; i < BLOCKS; i++) A(free)(blocks[i]);
    hakmem_purge();
    CHECK(units(RUN, 0, &after) == had && after == runs);
    units(SLAB, class_of(CLASS_SIZE), &after);
    CHECK(after == before);
}

static void *use_a_little(void *gate) {
    void *p = A(malloc)(100);
    pthread_barrier_wait(gate);
    A(free)(p);
    return NULL;
}

static void more_threads_than_blocks_are_all_counted(void) {
    static char json[1 << 16];
    pthread_t ids[THREADS];
    pthread_barrier_t gate;
    uint64_t before = counted("\"threads\"");
    CHECK(pthread_barrier_init(&gate, NULL, THREADS) == 0);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&ids[i], NULL, use_a_little, &gate) == 0);
    for (int i = 0; i < THREADS; i++) pthread_join(ids[i], NULL);
    CHECK(counted("\"threads\"") >= before + THREADS && told(NULL, "count_blocks") < THREADS);
    CHECK(hakmem_stats_json(json, sizeof json) < sizeof json);
    const char *at = strstr(json, "\"refill_slab\":");
    CHECK(at && strtoull(at + 14, NULL, 10) == counted("\"refill_slab\""));
    CHECK((word_at(told("\"at\"", "moving")) & 1) == 0);
}

static void records_grow_with_the_heap(void) {
    enum { LARGE = 60, BYTES = 3 << 20 };
    static char *large[LARGE];
    uint64_t shown = word_at(told("\"at\"", "shown"));
    for (int i = 0; i < LARGE; i++) CHECK((large[i] = A(malloc)(BYTES)));
    CHECK(word_at(told("\"at\"", "shown")) > shown && word_at(told("\"at\"", "shown")) == word_at(told("\"at\"", "known")));
    for (int i = 0; i < LARGE; i++) A(free)(large[i]);
}

static void a_child_has_a_page_of_its_own(void) {
    uint64_t runs, after;
    units(RUN, 0, &runs);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(60);
        void *p = A(malloc)(5 * UNIT);
        page = open_page(getpid());
        CHECK(told(NULL, "pid") == (uint64_t)getpid());
        units(RUN, 0, &after);
        CHECK(p && after == runs + 5 && counted("\"threads\"") > 0);
        _exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    units(RUN, 0, &after);
    CHECK(after == runs);              /* the child's block is not in the parent's page */
    CHECK(unlink(path_of(pid)) == 0); /* _exit left it behind */
}

static void a_child_without_a_folder_goes_on_unseen(void) {
    char moved[600];
    snprintf(moved, sizeof moved, "%s.moved", folder);
    uint64_t runs, after, threads = counted("\"threads\"");
    units(RUN, 0, &runs);
    CHECK(rename(folder, moved) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(60);
        for (int i = 1; i < 300; i++) CHECK(A(malloc)((size_t)i * 1000));
        CHECK(hakmem_check() == 1);
        _exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK(rename(moved, folder) == 0);
    units(RUN, 0, &after);
    CHECK(after == runs && counted("\"threads\"") == threads);
}

static int run_itself(const char *name, const char *value, int argument) {
    char number[16];
    int status;
    snprintf(number, sizeof number, "%d", argument);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        struct rlimit short_files = {20000, 20000};
        if (argument == 5) CHECK(setrlimit(RLIMIT_FSIZE, &short_files) == 0);
        setenv(name, value, 1);
        execl("/proc/self/exe", "test_live", folder, number, (char *)NULL);
        _exit(127);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

static void a_page_that_cannot_be_made_stops_nothing(void) {
    char nowhere[600];
    snprintf(nowhere, sizeof nowhere, "%s/nothing", folder);
    CHECK(run_itself("HAKMEM_STATS_LIVE", nowhere, 4) == 0);
    CHECK(run_itself("HAKMEM_STATS_LIVE", folder, 5) == 0); /* files may have 20,000 bytes: making it longer would be a signal */
    CHECK(rmdir(folder) == 0 && mkdir(folder, 0700) == 0);
}

static void exit_removes_the_page(void) {
    CHECK(run_itself("HAKMEM_STATS_LIVE", folder, 1) == 0);
    CHECK(rmdir(folder) == 0 && mkdir(folder, 0700) == 0); /* it is empty */
}

static void statistics_at_exit_follow_no_link(void) {
    char path[600], link[600], text[64];
    snprintf(path, sizeof path, "%s/victim", folder);
    snprintf(link, sizeof link, "%s/link", folder);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    CHECK(fd >= 0 && write(fd, "kept", 4) == 4 && close(fd) == 0 && symlink(path, link) == 0);
    CHECK(run_itself("HAKMEM_STATS_JSON", link, 2) == 0);
    fd = open(path, O_RDONLY);
    CHECK(read(fd, text, sizeof text) == 4 && memcmp(text, "kept", 4) == 0 && close(fd) == 0);
    CHECK(unlink(path) == 0 && unlink(link) == 0);
}

static void statistics_at_exit_name_the_process(void) {
    char pattern[600];
    snprintf(pattern, sizeof pattern, "%s/stats", folder);
    CHECK(run_itself("HAKMEM_STATS_JSON", pattern, 3) == 0); /* it forks: two files */
    CHECK(unlink(pattern) == 0 && rmdir(folder) != 0);
    char command[700];
    snprintf(command, sizeof command, "rm %s/stats.[0-9]*", folder);
    CHECK(system(command) == 0 && rmdir(folder) == 0 && mkdir(folder, 0700) == 0);
}

static long size_of(const char *path) {
    struct stat st;
    return stat(path, &st) ? -1 : (long)st.st_size;
}

static void statistics_at_exit_spare_a_descriptor_that_changed(void) {
    char kept[600], other[600], number[16];
    snprintf(kept, sizeof kept, "%s/kept", folder);
    snprintf(other, sizeof other, "%s/other", folder);
    int fd = open(kept, O_WRONLY | O_CREAT, 0600);
    snprintf(number, sizeof number, "%d", fd);
    CHECK(fd >= 0 && run_itself("HAKMEM_STATS_JSON", number, 2) == 0);
    long written = size_of(kept);
    CHECK(written > 1000);
    CHECK(run_itself("HAKMEM_STATS_JSON", number, 1000 + fd) == 0);
    CHECK(size_of(kept) == written && size_of(other) == 0);
    CHECK(close(fd) == 0 && unlink(kept) == 0 && unlink(other) == 0);
}

/* The process that has the gates: 1 the page, 2 nothing, 3 forks once, 4 and 5 use the heap and fork, 1000 + n puts another file under descriptor n. */
static int again(int what) {
    if (what == 1) {
        page = open_page(getpid());
        RUN(what_the_allocator_does_shows_at_once);
        RUN(more_threads_than_blocks_are_all_counted);
        RUN(records_grow_with_the_heap);
        RUN(a_child_has_a_page_of_its_own);
        RUN(a_child_without_a_folder_goes_on_unseen);
    }
    if (what == 4 || what == 5)
        for (int i = 1; i < 300; i++) CHECK(A(malloc)((size_t)i * 1000));
    if (what >= 3 && what <= 5 && fork() > 0) wait(NULL);
    if (what >= 1000) {
        char other[600];
        snprintf(other, sizeof other, "%s/other", folder);
        CHECK(dup2(open(other, O_WRONLY | O_CREAT | O_CLOEXEC, 0600), what - 1000) == what - 1000);
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3) {
        snprintf(folder, sizeof folder, "%s", argv[1]);
        return again(atoi(argv[2]));
    }
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/hakmem-live.%ld", tmp ? tmp : "/tmp", (long)getpid());
    CHECK(mkdir(folder, 0700) == 0);
    RUN(exit_removes_the_page);
    RUN(a_page_that_cannot_be_made_stops_nothing);
    RUN(statistics_at_exit_follow_no_link);
    RUN(statistics_at_exit_name_the_process);
    RUN(statistics_at_exit_spare_a_descriptor_that_changed);
    CHECK(rmdir(folder) == 0);
    return 0;
}
