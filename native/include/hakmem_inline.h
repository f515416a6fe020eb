/* hakmem_inline: malloc and free without a call, for programs that are built together with hakmem and link libhakmem.a.
 *
 * hakmem_malloc and hakmem_free are the very fast path that malloc and free of the library are made of, and mix with them freely. Compile
 * with the flavour of the library that is linked: nothing for libhakmem.a, -DHAK_BUILD_FAST for libhakmem_minimal.a,
 * -DHAK_BUILD_OBSERVE for libhakmem_observe.a; a mismatch does not link. With -DHAKMEM_INLINE_REPLACE the names malloc and free
 * in the including file become these.
 *
 *   hak_block   a block while it is free in a thread cache: { next, mac }, mac = secret ^ next on a list; while pending
 *               mac = secret, and next is whatever the program left there
 *   hak_tls     per thread, in static TLS; per class the room left on the hot list, its head, and the block freed last
 *
 * Invariants: see native/src/depot.h (blocks) and native/src/tcache.h (lists).
 */
#ifndef HAKMEM_INLINE_H
#define HAKMEM_INLINE_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#if !defined(HAK_CHECKS) /* the library's own sources have decided in base.h */
#ifdef HAK_BUILD_FAST
#define HAK_CHECKS 0
#else
#define HAK_CHECKS 1
#endif
#endif

#if !HAK_CHECKS
#define hak_tls hak_tls_fast
#elif defined(HAK_BUILD_OBSERVE)
#define hak_tls hak_tls_observe
#else
#define hak_tls hak_tls_standard
#endif

#define HAK_CLASSES 61 /* 1..61; 0 is no class */
#define HAK_SMALL_MAX 32768
#define HAK_UNIT_SHIFT 16
/* On what the fast path touches: -fvisibility leaves declarations alone, and every address would come from the GOT. */
#define HAK_HIDDEN __attribute__((visibility("hidden")))
/* The compiler forgets what it knows of x: keeps it from spending a register and an instruction on a shared address. */
#define HAK_OPAQUE(x) __asm__("" : "+r"(x))
#define HAK_UNLIKELY(x) __builtin_expect(!!(x), 0)

typedef struct __attribute__((may_alias)) hak_block {
    struct hak_block *next;
    uintptr_t mac;
} hak_block;

struct hak_tls {
    int32_t room[HAK_CLASSES + 1];
    hak_block *head[HAK_CLASSES + 1];
#if HAK_CHECKS
    hak_block *pending[HAK_CLASSES + 1];
#endif
    struct heap *heap; /* NULL: the thread is not registered */
};

extern HAK_HIDDEN __thread struct hak_tls hak_tls;
extern HAK_HIDDEN const uint8_t hak_size_class[HAK_SMALL_MAX / 16 + 1]; /* by (bytes + 15) / 16 */
extern HAK_HIDDEN uintptr_t hak_arena_base;
extern HAK_HIDDEN size_t hak_arena_units; /* 0 until the start */
extern HAK_HIDDEN uint8_t *hak_unit_class; /* class of a slab's unit; 0 sends free the slow way */
extern HAK_HIDDEN uintptr_t hak_secret;

HAK_HIDDEN void *hak_malloc_slow(size_t cls);                  /* the hot list is empty, or damaged */
HAK_HIDDEN void *hak_malloc_large(size_t size);                /* above HAK_SMALL_MAX */
HAK_HIDDEN void hak_free_slow(hak_block *p, size_t cls);       /* p is on no list yet; cls 0: large, foreign, checked */
#ifdef HAK_BUILD_OBSERVE
HAK_HIDDEN void hak_count_fast(int is_free);
#else
#define hak_count_fast(is_free) ((void)0)
#endif

static inline void hak_block_link(hak_block *b, hak_block *next) {
    b->next = next;
#if HAK_CHECKS
    b->mac = hak_secret ^ (uintptr_t)next;
#endif
}

/* Idle threads' lists are taken back behind a memory barrier in every thread (src/heap.h), which the sanitizer cannot see. */
#ifdef __SANITIZE_THREAD__
void __tsan_release(void *);
void __tsan_acquire(void *);
#define hak_listed() __tsan_release(&hak_tls)
#define hak_taken_over(lists) __tsan_acquire(lists)
#else
#define hak_listed() ((void)0)
#define hak_taken_over(lists) ((void)0)
#endif

static inline int hak_block_looks_free(const hak_block *b) { return ((uintptr_t)b->next ^ b->mac) == hak_secret; }

/* FAST: pop the hot list of a class. SLOW: it is empty, damaged, or its first block was freed again. */
static inline void *hak_alloc_class(size_t c) {
    HAK_OPAQUE(c);
    hak_block *p = hak_tls.head[c];
    HAK_OPAQUE(p); /* or gcc keeps the result in another register than the one it returns */
#if HAK_CHECKS
    hak_block *next = (hak_block *)(p->mac ^ hak_secret);
    if (HAK_UNLIKELY(next != p->next)) return hak_malloc_slow(c);
    HAK_OPAQUE(c);
    p->mac = 0;
    HAK_OPAQUE(c);
    hak_tls.head[c] = next;
#else
    if (HAK_UNLIKELY(p == NULL)) return hak_malloc_slow(c);
    HAK_OPAQUE(c);
    hak_tls.head[c] = p->next;
#endif
    hak_tls.room[c]++;
    hak_count_fast(0);
    return p;
}

static inline void *hakmem_malloc(size_t size) {
    if (HAK_UNLIKELY(size > HAK_SMALL_MAX)) return hak_malloc_large(size);
    return hak_alloc_class(hak_size_class[(size + 15) >> 4]);
}

/* FAST: the block freed before goes on the hot list, this one becomes pending. SLOW: a full list, a second free, or the block
 * freed before was handed out or written to since. Class 0 needs no test: its list has no room, ever. */
static inline void hakmem_free(void *v) {
    hak_block *p = (hak_block *)v;
    size_t u = ((uintptr_t)p - hak_arena_base) >> HAK_UNIT_SHIFT;
    if (HAK_UNLIKELY(u >= hak_arena_units)) {
        hak_free_slow(p, 0);
        return;
    }
    size_t c = __atomic_load_n(&hak_unit_class[u], __ATOMIC_RELAXED);
    if (HAK_UNLIKELY(--hak_tls.room[c] < 0)) {
        hak_free_slow(p, c);
        return;
    }
    HAK_OPAQUE(c);
#if HAK_CHECKS
    hak_block *q = hak_tls.pending[c];
    if (HAK_UNLIKELY(p == q) || HAK_UNLIKELY(q->mac != hak_secret)) {
        hak_free_slow(p, c);
        return;
    }
    HAK_OPAQUE(c);
    hak_tls.pending[c] = p;
    p->mac = hak_secret; /* a store only: p may be cold. Were p on a list, its link would no longer agree */
    hak_block_link(q, hak_tls.head[c]);
    HAK_OPAQUE(c);
    hak_listed();
    hak_tls.head[c] = q;
#else
    p->next = hak_tls.head[c];
    HAK_OPAQUE(c);
    hak_tls.head[c] = p;
#endif
    hak_count_fast(1);
}

#ifdef HAKMEM_INLINE_REPLACE
#define malloc(size) hakmem_malloc(size)
#define free(p) hakmem_free(p)
#endif
#endif
