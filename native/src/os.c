#include "os.h"

#include "stats.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifdef HAK_UNDER_QEMU /* takes the old place for unmapped in spite of DONTUNMAP: an unknown flag is refused, and the caller copies */
#undef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 64
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

#define ARENA_ALIGN (2 * MIB)
#define ARENA_MIN (16 * MIB)
#define ARENA_MAX ((size_t)4 << 40)

uintptr_t hak_arena_base;
size_t hak_arena_units;
unsigned hak_page_shift = MIN_PAGE_SHIFT;
static size_t reserved; /* bytes of the arena, from its beginning */
static bool scarce; /* RLIMIT_AS may end before memory does */
static bool advice_off;

/* Four times RAM leaves room for fragmentation of addresses; half of RLIMIT_AS is left to stacks and libraries, or all that hakmem does
 * not come to use. */
static size_t wanted_arena(void) {
    struct rlimit lim;
    struct sysinfo info; /* sysconf may allocate */
    size_t ram = sysinfo(&info) ? 0 : (size_t)info.totalram * info.mem_unit, size = ram * 4;
    if (size < (size_t)64 << 30) size = (size_t)64 << 30;
    if (size > ARENA_MAX) size = ARENA_MAX;
    if (!getrlimit(RLIMIT_AS, &lim) && lim.rlim_cur != RLIM_INFINITY) {
        scarce = lim.rlim_cur / 2 < ram;
        size_t most = (size_t)(scarce ? lim.rlim_cur : lim.rlim_cur / 2);
        if (size > most) size = most;
    }
    return size & ~(ARENA_ALIGN - 1);
}

static void *reserve(size_t size, size_t align) {
    STAT(sys_mmap);
    char *p = mmap(NULL, size + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return NULL;
    char *aligned = (char *)round_up((uintptr_t)p, align);
    if (aligned != p) munmap(p, (size_t)(aligned - p));
    if (aligned + size != p + size + align) munmap(aligned + size, (size_t)(p + align - aligned));
    STAT_N(sys_munmap, 2);
    return aligned;
}

bool os_reserve(size_t end) {
    if (end <= reserved) return true;
    int saved = errno;
    char *at = (char *)hak_arena_base + reserved;
    STAT(sys_mmap);
    char *p = mmap(at, end - reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (p == at) poke(&reserved, end);
    else if (p != MAP_FAILED) munmap(p, end - reserved); /* before Linux 4.17 the place is only a wish */
    errno = saved;
    return p == at;
}

/* Far below stacks and libraries, where the kernel has no reason to put anything while the arena grows. */
static bool found_place(void) {
    uintptr_t stack = (uintptr_t)&stack;
    hak_arena_base = (stack / 4 + os_random() % (stack / 16)) & ~(uintptr_t)(ARENA_ALIGN - 1);
    return os_reserve(ARENA_ALIGN);
}

bool os_addresses_are_scarce(void) { return scarce; }

bool os_init(void) {
    if (hak_arena_units) return true;
    int saved = errno;
    unsigned real = (unsigned)__builtin_ctzl(getauxval(AT_PAGESZ));
    if (real > UNIT_SHIFT) return false;
    hak_page_shift = real > MIN_PAGE_SHIFT ? real : MIN_PAGE_SHIFT;
    for (size_t size = wanted_arena(); size >= ARENA_MIN; size = (size / 2) & ~(ARENA_ALIGN - 1)) {
        if (!scarce || !found_place()) {
            void *p = reserve(size, ARENA_ALIGN);
            if (!p) continue;
            hak_arena_base = (uintptr_t)p;
            reserved = size;
        }
        hak_arena_units = size >> UNIT_SHIFT;
        break;
    }
    errno = saved;
    return hak_arena_units != 0;
}

static os_meta_table own_meta;
os_meta_table *hak_os_meta = &own_meta;
static hak_lock meta_lock = HAK_LOCK_INIT;

void os_lock(void) { lock(&meta_lock); }
void os_unlock(void) { unlock(&meta_lock); }

static void list_metadata(const void *p, const char *name) {
    if (!HAK_STATS_ON) return;
    lock(&meta_lock);
    uint64_t n = hak_os_meta->count;
    if (n < OS_META_MAX) {
        os_meta *m = &hak_os_meta->range[n];
        m->at = (uintptr_t)p;
        for (size_t i = 0; i + 1 < sizeof m->name && name[i]; i++) m->name[i] = name[i];
        __atomic_store_n(&hak_os_meta->count, n + 1, __ATOMIC_RELEASE);
    }
    unlock(&meta_lock);
}

static void grow_metadata(const void *p, size_t size) {
    if (!HAK_STATS_ON) return;
    lock(&meta_lock);
    os_meta *m = NULL; /* the range that begins last before p */
    for (uint64_t i = 0; i < hak_os_meta->count; i++)
        if (hak_os_meta->range[i].at <= (uintptr_t)p && (!m || hak_os_meta->range[i].at > m->at)) m = &hak_os_meta->range[i];
    if (m && (uintptr_t)p + size - m->at > m->bytes) poke(&m->bytes, (uintptr_t)p + size - m->at);
    unlock(&meta_lock);
}

COLD void os_meta_move(os_meta_table *to) {
    lock(&meta_lock);
    memcpy(to, hak_os_meta, sizeof *to);
    hak_os_meta = to;
    unlock(&meta_lock);
}

void *os_metadata(size_t size, const char *name) {
    int saved = errno;
    STAT(sys_mmap);
    void *p = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    errno = saved;
    if (p == MAP_FAILED) return NULL;
    list_metadata(p, name);
    return p;
}

/* Of an arena that is reserved as it is used, what lies beyond may be anybody's. */
static bool owns(const void *p, size_t size) {
    size_t at = (uintptr_t)p - hak_arena_base, end = peek(&reserved);
    return size && at < end && size <= end - at && !((uintptr_t)p & (((uintptr_t)1 << hak_page_shift) - 1));
}

bool os_commit(void *p, size_t size) {
    int saved = errno;
    STAT(sys_mprotect);
    STAT(os_alloc);
    bool ok = mprotect(p, size, PROT_READ | PROT_WRITE) == 0;
    if (ok && !in_arena(p)) grow_metadata(p, size);
    errno = saved;
    return ok;
}

bool os_commit_entries(void *table, size_t size, size_t from, size_t to) {
    size_t page = (size_t)1 << hak_page_shift, a = round_up(from * size, page), b = round_up(to * size, page);
    return a == b || os_commit((char *)table + a, b - a);
}

bool os_show(void *p, size_t size) {
    int saved = errno;
    STAT(sys_mprotect);
    bool ok = mprotect(p, size, PROT_READ) == 0;
    errno = saved;
    return ok;
}

bool os_uncommit(void *p, size_t size) {
    if (!owns(p, size)) return false;
    int saved = errno;
    STAT(sys_mmap);
    STAT(os_free);
    /* A fresh reservation over the old mapping: one call, and no moment in which a stranger could take the addresses. */
    bool ok = mmap(p, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED;
    errno = saved;
    return ok;
}

bool os_advice_on(void) { return !peek(&advice_off); }

int ss_os_madvise_guarded(void *p, size_t size, int advice) {
    int saved = errno;
    if (!os_advice_on()) {
        STAT(advise_off);
        return -1;
    }
    if (!owns(p, size)) {
        STAT(advise_foreign);
        poke(&advice_off, true);
        return -1;
    }
    STAT(sys_madvise);
    int r = madvise(p, size, advice);
    if (r) {
        STAT(advise_failed);
        if (errno == ENOMEM) poke(&advice_off, true);
    }
    errno = saved;
    return r;
}

#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif
#define SELF_PIDFD (-10000) /* PIDFD_SELF: follows fork, as a file descriptor of ourselves would not */

static bool no_vector;

size_t os_madvise_ranges_guarded(const os_range *ranges, size_t n, int advice) {
    _Static_assert(sizeof(os_range) == sizeof(struct iovec) && OS_RANGES <= 1024, "ranges are handed on as they are");
    int saved = errno;
    size_t done = 0, bytes = 0;
    for (size_t i = 0; i < n; i++) {
        if (!owns(ranges[i].p, ranges[i].size)) n = i + !ss_os_madvise_guarded(ranges[i].p, ranges[i].size, advice);
        else bytes += ranges[i].size;
    }
    if (n > 1 && !peek(&no_vector) && os_advice_on()) {
        STAT(sys_madvise);
        if (syscall(SYS_process_madvise, SELF_PIDFD, ranges, n, advice, 0) == (long)bytes) done = n;
        else poke(&no_vector, true);
    }
    while (done < n && !ss_os_madvise_guarded(ranges[done].p, ranges[done].size, advice)) done++;
    errno = saved;
    return done;
}

bool os_move(void *from, void *to, size_t size) {
    int saved = errno;
    STAT(sys_mremap);
    /* DONTUNMAP (Linux 5.7): the old place stays ours throughout; older kernels refuse and the caller copies. */
    bool ok = mremap(from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to) != MAP_FAILED;
    errno = saved;
    return ok;
}

static bool no_barrier;
bool os_barrier_on(void) { return !peek(&no_barrier); }

bool os_barrier(void) {
    int saved = errno;
    long r = -1;
    if (os_barrier_on() && (r = syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0)) && errno == EPERM &&
        !syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0)) /* once in a process' life */
        r = syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
    if (r) poke(&no_barrier, true);
    errno = saved;
    return r == 0;
}

os_look os_read_memory(void *to, const void *from, size_t size) {
    int saved = errno;
    struct iovec here = {to, size}, there = {(void *)(uintptr_t)from, size};
    long n = syscall(SYS_process_vm_readv, getpid(), &here, 1, &there, 1, 0);
    os_look out = n == (long)size ? OS_READ : n >= 0 || errno == EFAULT ? OS_NOTHING_THERE : OS_CANNOT_TELL;
    errno = saved;
    return out;
}

static uint64_t clock_ns(clockid_t id) {
    struct timespec ts;
    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}
uint64_t os_now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }
uint64_t os_cpu_ns(void) { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }
uint64_t os_now_coarse_ns(void) { return clock_ns(CLOCK_MONOTONIC_COARSE); }

size_t os_read_small(const char *path, char *buf, size_t size) {
    int saved = errno, cancel = cancel_off(), fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);
    if (fd >= 0) close(fd);
    cancel_back(cancel);
    errno = saved;
    if (n < 0) n = 0;
    buf[n] = 0;
    return (size_t)n;
}

size_t os_resident_bytes(void) {
    char buf[128], *at = buf;
    if (!os_read_small("/proc/self/statm", buf, sizeof buf)) return 0;
    size_t pages = 0; /* by hand: strchr and strtoul fault in parts of libc that few programs use */
    while (*at && *at != ' ') at++;
    while (*at && *++at >= '0' && *at <= '9') pages = pages * 10 + (size_t)(*at - '0');
    return pages * getauxval(AT_PAGESZ); /* hak_page_shift may be larger, in tests */
}

/* One word a page: bit 63 present, bit 56 mapped by nobody else, which the page of zeros behind memory that was only read is not. */
#define PAGE_OURS (UINT64_C(1) << 63 | UINT64_C(1) << 56)

COLD size_t os_resident_in(const void *p, size_t size) {
    uint64_t words[512];
    size_t page = getauxval(AT_PAGESZ);
    int saved = errno, cancel = cancel_off(), fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    size_t first = (uintptr_t)p / page, end = div_up((uintptr_t)p + size, page), found = 0;
    bool ok = fd >= 0;
    while (ok && first < end) {
        size_t n = end - first < 512 ? end - first : 512;
        ok = pread(fd, words, n * sizeof *words, (off_t)(first * sizeof *words)) == (ssize_t)(n * sizeof *words);
        for (size_t i = 0; ok && i < n; i++) found += (words[i] & PAGE_OURS) == PAGE_OURS;
        first += n;
    }
    if (fd >= 0) close(fd);
    cancel_back(cancel);
    errno = saved;
    return ok ? found * page : SIZE_MAX;
}

uint16_t os_gone_pages(const void *unit) {
    unsigned char resident[UNIT_SIZE >> 12]; /* of each page of the kernel's */
    int saved = errno;
    size_t theirs = getauxval(AT_PAGESZ), step = (size_t)1 << hak_page_shift;
    uint16_t gone = mincore((void *)(uintptr_t)unit, UNIT_SIZE, resident) ? 0 : UINT16_MAX;
    for (size_t at = 0; gone && at < UNIT_SIZE; at += theirs)
        if (resident[at / theirs] & 1) gone &= (uint16_t)~(1u << at / step);
    errno = saved;
    return gone;
}

COLD bool os_is_written(const void *p) {
    size_t bytes = os_resident_in(p, 1);
    return bytes && bytes != SIZE_MAX;
}

COLD void *os_map_file(void *at, int fd, size_t size) {
    void *p = mmap(at, size, PROT_READ | PROT_WRITE, MAP_SHARED | (at ? MAP_FIXED : 0), fd, 0);
    return p == MAP_FAILED ? NULL : p;
}

COLD bool os_unshare(void *at, size_t keep, size_t size) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *copy = mmap(NULL, keep, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (copy == MAP_FAILED) return false;
    memcpy(copy, at, keep);
    return mremap(copy, keep, keep, MREMAP_MAYMOVE | MREMAP_FIXED, at) != MAP_FAILED &&
           mmap((char *)at + keep, size - keep, PROT_NONE, flags | MAP_FIXED, -1, 0) != MAP_FAILED;
}

size_t os_peak_kb(void) {
    char buf[4096], *at;
    if (!os_read_small("/proc/self/status", buf, sizeof buf) || !(at = strstr(buf, "VmHWM:"))) return 0;
    return (size_t)strtoull(at + 6, NULL, 10);
}

uint64_t os_random(void) {
    uint64_t r = os_now_ns() * 0x9E3779B97F4A7C15ull ^ (uintptr_t)&r;
    const void *kernel = (const void *)getauxval(AT_RANDOM); /* 16 random bytes; libc keeps its own secrets in them, so mix */
    uint64_t a[2] = {0, 0};
    if (kernel) memcpy(a, kernel, sizeof a);
    r ^= a[0] * 0xD6E8FEB86659FD93ull ^ (a[1] << 17 | a[1] >> 47);
    r ^= r >> 32;
    return r * 0xD6E8FEB86659FD93ull ^ r >> 29;
}
