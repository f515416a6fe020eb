/* Records what a program asks of malloc: preloaded, it passes every call on to the C library and notes it.
 *
 * One file a process, `$HAKMEM_RECORD.<pid>.<n>`: chunks of records, each of one thread; hakmem/traces/recording.py turns it into a trace.
 * The chunk that a thread writes is a shared map of the file: what was noted is in the file even if the program is killed, calls
 * _exit or replaces itself by exec. A child of fork opens a file of its own.
 *
 * Records carry a number from one counter: a free takes it before the C library sees the block, an allocation after it has it.
 * So for every address the numbers are in the order in which things happened. A reallocation is two records, one of each kind.
 */
#include "record.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

#define EXPORT __attribute__((visibility("default")))
#define LIKELY(x) __builtin_expect(!!(x), 1)

/* Where a thread writes. Lanes of threads that ended are taken over with the rest of their chunk. */
typedef struct lane {
    record *next, *end; /* free part of the chunk; equal: a new chunk is needed */
    record_chunk *chunk;
    struct lane *next_idle;
    uint32_t number;
} lane;

enum { MAX_LANES = 4096 };

static _Atomic bool recording;
static off_t file_end;
static _Atomic uint64_t clock_tick = 1;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of the file and the lanes */
static pthread_key_t at_thread_exit;
static lane lanes[MAX_LANES], *idle;
static uint32_t lane_count;
static char path[PATH_MAX];
static _Thread_local lane *own __attribute__((tls_model("initial-exec")));

/* ---- the file ---- */

static void stop(const char *why) {
    char line[PATH_MAX + 200];
    recording = false;
    int length = snprintf(line, sizeof line, "hakmem record: recording ends early, %s: %s (%s)\n", path, why, strerror(errno));
    if (length > 0 && write(STDERR_FILENO, line, (size_t)length) < 0) return;
}

static void note_command(void) {
    char text[4096], name[PATH_MAX + 8];
    int from = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t got = from < 0 ? -1 : read(from, text, sizeof text);
    snprintf(name, sizeof name, "%s.cmd", path);
    int to = got > 0 ? open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
    if (to >= 0 && write(to, text, (size_t)got) < got) unlink(name);
    if (to >= 0) close(to);
    if (from >= 0) close(from);
}

static void open_file(void) {
    const char *prefix = getenv("HAKMEM_RECORD");
    int file = -1;
    recording = false;
    lane_count = 0;
    idle = NULL;
    file_end = 0;
    if (!prefix || !*prefix) return;
    for (int n = 0; n < 1000000; n++) { /* after exec the process has the same number and a file already */
        if (snprintf(path, sizeof path, "%s.%d.%d", prefix, (int)getpid(), n) >= (int)sizeof path) return;
        file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (file >= 0 || errno != EEXIST) break;
    }
    if (file < 0) {
        stop("the file cannot be made");
        return;
    }
    close(file);
    note_command();
    recording = true;
}

/* Adds a chunk to the file and maps it. Its blocks on the disk are claimed first: a full disk is an error here, not a signal at
 * the first write. The file is not kept open: programs close descriptors that are not theirs and use the numbers again. */
static record_chunk *add_chunk(void) {
    void *map = MAP_FAILED;
    int file = open(path, O_RDWR | O_CLOEXEC), failed = file < 0 ? errno : posix_fallocate(file, file_end, sizeof(record_chunk));
    if (!failed) {
        map = mmap(NULL, sizeof(record_chunk), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file, file_end);
        file_end += (off_t)sizeof(record_chunk);
    }
    if (file >= 0) close(file);
    if (failed) errno = failed;
    return map == MAP_FAILED ? NULL : map;
}

static bool new_chunk(lane *of) {
    of->next = of->end = NULL;
    pthread_mutex_lock(&mutex); /* a fork in between would have the child unmap the old chunk's place, whatever is there then */
    if (of->chunk) munmap(of->chunk, sizeof *of->chunk);
    of->chunk = add_chunk();
    pthread_mutex_unlock(&mutex);
    if (!of->chunk) {
        stop("no room");
        return false;
    }
    of->chunk->lane = of->number;
    of->next = of->chunk->records;
    of->end = of->chunk->records + RECORDS_A_CHUNK;
    return true;
}

static lane *take_lane(void) {
    lane *taken = NULL;
    pthread_mutex_lock(&mutex);
    if (idle) {
        taken = idle;
        idle = taken->next_idle;
    } else if (lane_count < MAX_LANES) {
        taken = &lanes[lane_count];
        *taken = (lane){.number = lane_count++};
    }
    pthread_mutex_unlock(&mutex);
    if (!taken) {
        errno = EAGAIN;
        stop("too many threads at once");
        return NULL;
    }
    own = taken; /* pthread_setspecific may allocate */
    pthread_setspecific(at_thread_exit, taken);
    return taken;
}

/* ---- notes ---- */

static __attribute__((noinline)) void note_slowly(uint64_t op, const void *p, uint64_t size) {
    int saved = errno, cancel;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel); /* malloc is no point of cancellation, but open is */
    lane *at = own ? own : take_lane();
    if (at && (at->next < at->end || new_chunk(at)))
        *at->next++ = (record){(uint64_t)(uintptr_t)p | op << RECORD_OP_SHIFT, size, atomic_fetch_add(&clock_tick, 1)};
    pthread_setcancelstate(cancel, &cancel);
    errno = saved;
}

static inline void note(uint64_t op, const void *p, uint64_t size) {
    if (!atomic_load_explicit(&recording, memory_order_relaxed)) return;
    lane *at = own;
    if (LIKELY(at && at->next < at->end)) {
        uint64_t tick = atomic_fetch_add_explicit(&clock_tick, 1, memory_order_acq_rel);
        *at->next++ = (record){(uint64_t)(uintptr_t)p | op << RECORD_OP_SHIFT, size, tick};
    } else {
        note_slowly(op, p, size);
    }
}

static void end_thread(void *argument) {
    lane *ended = argument;
    if (!recording || own != ended) return;
    note(RECORD_EXIT, NULL, 0);
    pthread_mutex_lock(&mutex);
    ended->next_idle = idle;
    idle = ended;
    own = NULL; /* destructors that still run take a lane anew */
    pthread_mutex_unlock(&mutex);
}

/* ---- the life of the process ---- */

static void before_fork(void) { pthread_mutex_lock(&mutex); }
static void in_parent(void) { pthread_mutex_unlock(&mutex); }

static void in_child(void) {
    int cancel;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    pthread_mutex_unlock(&mutex);
    for (uint32_t i = 0; i < lane_count; i++)
        if (lanes[i].chunk) munmap(lanes[i].chunk, sizeof *lanes[i].chunk);
    own = NULL;
    open_file();
    pthread_setcancelstate(cancel, &cancel);
}

__attribute__((constructor(101))) static void begin(void) {
    pthread_key_create(&at_thread_exit, end_thread);
    pthread_atfork(before_fork, in_parent, in_child);
    open_file();
}

/* ---- the calls ---- */

EXPORT void *malloc(size_t size) {
    void *p = __libc_malloc(size);
    if (LIKELY(p != NULL)) note(RECORD_MALLOC, p, size);
    return p;
}

EXPORT void free(void *p) {
    if (p) note(RECORD_FREE, p, 0);
    __libc_free(p);
}

EXPORT void *calloc(size_t count, size_t size) {
    void *p = __libc_calloc(count, size);
    if (LIKELY(p != NULL)) note(RECORD_CALLOC, p, count * size);
    return p;
}

EXPORT void *realloc(void *old, size_t size) {
    if (!old) return malloc(size);
    if (size == 0) {
        free(old);
        return NULL;
    }
    note(RECORD_MOVE_FROM, old, 0);
    void *p = __libc_realloc(old, size);
    note(RECORD_MOVE_TO, p, size); /* NULL: the old block stays */
    return p;
}

EXPORT void *reallocarray(void *old, size_t count, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(old, bytes);
}

static void *aligned(size_t alignment, size_t size) {
    void *p = __libc_memalign(alignment, size);
    if (LIKELY(p != NULL)) note(RECORD_ALIGNED | (uint64_t)(63 - __builtin_clzll(alignment | 1)) << RECORD_ALIGN_SHIFT, p, size);
    return p;
}

EXPORT void *memalign(size_t alignment, size_t size) { return aligned(alignment, size); }
EXPORT void *aligned_alloc(size_t alignment, size_t size) { return aligned(alignment, size); }
EXPORT void *valloc(size_t size) { return aligned((size_t)sysconf(_SC_PAGESIZE), size); }

EXPORT void *pvalloc(size_t size) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return aligned(page, (size + page - 1) & ~(page - 1));
}

EXPORT int posix_memalign(void **result, size_t alignment, size_t size) {
    if (alignment < sizeof(void *) || (alignment & (alignment - 1))) return EINVAL;
    int saved = errno;
    void *p = aligned(alignment, size);
    errno = saved;
    if (!p) return ENOMEM;
    *result = p;
    return 0;
}

/* The program may be linked with another allocator, whose own answer would be about blocks that are not its own. */
EXPORT size_t malloc_usable_size(void *p) {
    static size_t (*_Atomic usable_size)(void *);
    if (!p) return 0;
    if (!usable_size) {
        void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
        void *found = libc ? dlsym(libc, "malloc_usable_size") : NULL;
        if (!found) return 0;
        size_t (*typed)(void *);
        memcpy(&typed, &found, sizeof typed);
        usable_size = typed;
    }
    return usable_size(p);
}
