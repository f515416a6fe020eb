/* base: limits, alignment, hints and locks that every room shares. A leaf: of this project it includes
 * only the public fast path, which it must agree with.
 *
 *   unit       64 KiB (UNIT_SIZE), aligned; the arena is an array of units
 *   SuperSlab  SS_UNITS units (2 MiB by default, 1 MiB or 512 KiB by gate), aligned to its size
 *   page       what the kernel says: 4, 16 or 64 KiB, so 1..16 pages a unit
 *   block      what malloc returns: at least 16 bytes, 16-byte aligned
 *
 * Builds: HAK_BUILD_FAST has no misuse checks, counters, dumps or research gates; HAK_BUILD_STANDARD has all of them;
 * HAK_BUILD_OBSERVE also counts on the fast path. HAK_STRESS makes every limit tiny so that rare paths run in tests.
 */
#ifndef HAK_BASE_H
#define HAK_BASE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if !defined(__linux__) || !(defined(__x86_64__) || defined(__aarch64__))
#error "hakmem runs on Linux, x86-64 or aarch64, only"
#endif

#if defined(HAK_BUILD_FAST)
#define HAK_BUILD_NAME "fast"
#define HAK_CHECKS 0
#define HAK_STATS_ON 0
#define HAK_OBSERVE 0
#elif defined(HAK_BUILD_OBSERVE)
#define HAK_BUILD_NAME "observe"
#define HAK_CHECKS 1
#define HAK_STATS_ON 1
#define HAK_OBSERVE 1
#else
#define HAK_BUILD_NAME "standard"
#define HAK_CHECKS 1
#define HAK_STATS_ON 1
#define HAK_OBSERVE 0
#endif

/* A function's result: gcc would keep it in another register than the one it returns. */
#define hak_returned(x) HAK_OPAQUE(x)
#include "../include/hakmem_inline.h"

#define HAK_VERSION "0.1.0"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define COLD __attribute__((cold, noinline))
#define NOINLINE __attribute__((noinline))
#define HOT __attribute__((aligned(64))) /* starts a cache line wherever the linker puts it: 1.5 % at ws=400 */
#define UNSEEN __attribute__((no_sanitize("thread"))) /* reads what may change under its eyes, and knows it */
#define EXPORT __attribute__((visibility("default")))

#define HIDDEN HAK_HIDDEN
#define UNIT_SHIFT HAK_UNIT_SHIFT
#define UNIT_SIZE ((size_t)1 << UNIT_SHIFT)
#define UNIT_MASK (UNIT_SIZE - 1)
#ifndef MIN_PAGE_SHIFT /* tests pretend larger pages than the kernel's, which is allowed: every range is rounded to them */
#define MIN_PAGE_SHIFT 12
#endif
#define SS_MAX_UNITS 32 /* bits of the masks in a SuperSlab */
#define MIB ((size_t)1 << 20)

#ifdef HAK_STRESS
#define DEPOT_CHAINS 1
#define REFILL_BYTES 64
#define DIRTY_SLACK_UNITS 1
#define PURGE_STEP_BYTES ((size_t)512)
#define IDLE_NS_PER_MS 0 /* every thread on a slow way reaches for the lists of all others, however busy these are */
#else
#define DEPOT_CHAINS 8                  /* full chains a class hands between threads; 64 brings no more */
#define REFILL_BYTES 4096               /* a miss fetches about a page of blocks */
#define DIRTY_SLACK_UNITS 4             /* empty units Lean leaves resident, so that it does not thrash */
#define PURGE_STEP_BYTES ((size_t)65536) /* freed bytes after which Lean looks for free pages again */
#define IDLE_NS_PER_MS 1000000
#endif

typedef pthread_mutex_t hak_lock;
#ifdef PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP
#define HAK_LOCK_INIT PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP
#else
#define HAK_LOCK_INIT PTHREAD_MUTEX_INITIALIZER
#endif
/* Without the instruction, which not every x86-64 has, __builtin_popcountll is a call and a walk over a table. */
static inline unsigned count_ones(uint64_t x) {
    x -= x >> 1 & 0x5555555555555555u;
    x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return (unsigned)(x * 0x0101010101010101u >> 56);
}

/* The thread that forks holds every lock meanwhile, and handlers of other libraries, which run before and after the allocator's in whatever order
 * they came, may allocate: to such a thread locks are nothing. Nor are they to one that ends the program, whose handler of SIGABRT may. */
extern HIDDEN _Thread_local bool hak_holds_all;
static inline void lock(hak_lock *l) {
    if (likely(!hak_holds_all)) (void)pthread_mutex_lock(l);
}
static inline void unlock(hak_lock *l) {
    if (likely(!hak_holds_all)) (void)pthread_mutex_unlock(l);
}

/* malloc, free and fork are no points of cancellation, but open, read and write are: whoever may call them under a lock, does so in between. */
static inline int cancel_off(void) {
    int was;
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &was);
    return was;
}
static inline void cancel_back(int was) { (void)pthread_setcancelstate(was, &was); }

static inline size_t round_up(size_t n, size_t to) { return (n + to - 1) & ~(to - 1); } /* to: a power of two */
static inline size_t div_up(size_t n, size_t by) { return n / by + (n % by != 0); }
static inline bool is_pow2(size_t n) { return n && !(n & (n - 1)); }
static inline uint32_t bits32(unsigned n) { return n >= 32 ? UINT32_MAX : ((uint32_t)1 << n) - 1; } /* n low bits */
static inline uint64_t bits64(unsigned n) { return n >= 64 ? UINT64_MAX : ((uint64_t)1 << n) - 1; }

/* Relaxed accesses to words that are read outside the lock under which they are written. */
#define peek(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define poke(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)

#endif
