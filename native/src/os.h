/* os: the only room that maps, unmaps and advises.
 *
 *   arena    one range [arena_base, arena_base + arena_units * UNIT_SIZE), aligned to 2 MiB; every block lives in it. It is reserved
 *            at once, under a low RLIMIT_AS as it is used: addresses that hakmem does not need are the program's
 *   states   reserved (no access) -> os_commit -> usable -> os_advise -> usable, pages given back
 *                                               -> os_uncommit -> reserved
 *
 * Advice outside the arena is refused, counted, and ends all advice for good; so does ENOMEM. Nothing outside the arena is ever
 * unmapped. errno is kept by every function here.
 */
#ifndef HAK_OS_H
#define HAK_OS_H

#include "base.h"

/* hak_arena_base, hak_arena_units: declared with the fast path */
extern HIDDEN unsigned hak_page_shift; /* 12, 14 or 16 */

/* Place the arena; its size adapts to RAM, RLIMIT_AS and what the kernel grants. False: no address space at all. Once placed it stays. */
bool os_init(void);
bool os_reserve(size_t end); /* its first `end` bytes are reserved, for good; one caller at a time. False: no address space */
bool os_addresses_are_scarce(void); /* RLIMIT_AS is below twice the RAM */

/* A reserved range for metadata outside the arena, never given back; os_commit makes parts usable. NULL: no address space. What
 * is in it is known by `name` to those who ask where memory is. */
void *os_metadata(size_t size, const char *name);

/* The ranges made so, in a table that may be moved to where another process sees it. Beyond OS_META_MAX they are not listed. */
#define OS_META_MAX 256
typedef struct {
    char name[16];
    uint64_t at, bytes; /* usable, from the beginning of the range */
} os_meta;
typedef struct {
    uint64_t count;
    os_meta range[OS_META_MAX];
} os_meta_table;
extern HIDDEN os_meta_table *hak_os_meta;
void os_meta_move(os_meta_table *to);
void os_lock(void), os_unlock(void); /* around fork */

/* Bytes of a range that are resident and nobody else's, as the kernel's page map tells; SIZE_MAX: it does not. */
size_t os_resident_in(const void *p, size_t size);
uint16_t os_gone_pages(const void *unit); /* a bit for each of ours of which nothing stands there, for sure */
bool os_is_written(const void *p); /* something does that this process wrote, for sure */

/* Map a file from its beginning, shared: over `at`, or anywhere if NULL. NULL: it cannot be. */
void *os_map_file(void *at, int fd, size_t size);
/* Put private memory with the same contents over the first `keep` bytes of such a mapping, and nothing over the rest. */
bool os_unshare(void *at, size_t keep, size_t size);

bool os_commit(void *p, size_t size); /* false: ENOMEM */
/* Entries [from, to) of a table of entries of `size` bytes; what stands on a page with those before is usable already. */
bool os_commit_entries(void *table, size_t size, size_t from, size_t to);
bool os_show(void *p, size_t size); /* it reads as zeros until it is committed, which costs and charges nothing; false: ENOMEM */
bool os_uncommit(void *p, size_t size); /* back to reserved, pages and contents are gone; false: nothing has changed */

/* 0, or -1: refused, and the caller must fall back to os_uncommit. `advice` as for madvise(2). */
int ss_os_madvise_guarded(void *p, size_t size, int advice);
bool os_advice_on(void);

/* The same for many ranges, in one call where the kernel lets a process advise itself by vector (Linux 6.13, PIDFD_SELF): half
 * the cost a page. Returns how many of the first ranges were advised. */
typedef struct {
    void *p;
    size_t size;
} os_range; /* laid out as struct iovec */
#define OS_RANGES 64
size_t os_madvise_ranges_guarded(const os_range *ranges, size_t n, int advice);

/* Move pages to another usable place of the arena; the old place stays usable and empty. False: nothing has changed. */
bool os_move(void *from, void *to, size_t size);

/* A memory barrier in every running thread of the process. False: the kernel does not do it (before Linux 4.14, seccomp), then or ever again. */
bool os_barrier(void);
bool os_barrier_on(void);

/* Copy memory of ours that may not be there any more. */
typedef enum { OS_READ, OS_NOTHING_THERE, OS_CANNOT_TELL } os_look;
os_look os_read_memory(void *to, const void *from, size_t size);

uint64_t os_now_ns(void); /* monotonic */
uint64_t os_cpu_ns(void); /* CPU time of the calling thread */
uint64_t os_now_coarse_ns(void); /* monotonic, a few ms coarse, no system call */
size_t os_resident_bytes(void); /* of the process, from /proc/self/statm; 0: unknown */
size_t os_peak_kb(void); /* VmHWM; 0: unknown */
size_t os_read_small(const char *path, char *buf, size_t size); /* text of a file in /proc; bytes, the final 0 not counted */
uint64_t os_random(void);

static inline bool in_arena(const void *p) { return ((uintptr_t)p - hak_arena_base) >> UNIT_SHIFT < hak_arena_units; }
static inline size_t unit_of(const void *p) { return ((uintptr_t)p - hak_arena_base) >> UNIT_SHIFT; }
static inline char *unit_address(size_t unit) { return (char *)(hak_arena_base + (unit << UNIT_SHIFT)); }

#endif
