/* hakmem_inline: malloc and free without a call, for programs that are built together with hakmem and link libhakmem.a.
 *
 * hakmem_malloc and hakmem_free are the very fast path that malloc and free of the library are made of, and mix with them freely. Compile
 * with the flavour of the library that is linked: nothing for libhakmem.a, -DHAK_BUILD_FAST for libhakmem_minimal.a,
 * -DHAK_BUILD_OBSERVE for libhakmem_observe.a; a mismatch does not link. With -DHAKMEM_INLINE_REPLACE the names malloc and free
 * in the including file become these.
 *
 *   hak_block   a block while it is free in a thread cache: { next, mac }, mac = key of its list ^ next
 *   hak_tls     per thread, in static TLS; per class the room left on the hot list, its head, and its key
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
#define hak_returned(x) ((void)0)
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
    uintptr_t key[HAK_CLASSES + 1]; /* no two lists have the same */
#endif
    struct heap *heap; /* NULL: the thread is not registered */
};

extern HAK_HIDDEN __thread struct hak_tls hak_tls;
extern HAK_HIDDEN const uint8_t hak_size_class[HAK_SMALL_MAX / 16 + 1]; /* by (bytes + 15) / 16 */
extern HAK_HIDDEN uintptr_t hak_arena_base;
extern HAK_HIDDEN size_t hak_arena_units; /* 0 until the start */
extern HAK_HIDDEN uint8_t *hak_unit_class; /* class of a slab's unit; 0 sends free the slow way */

HAK_HIDDEN void *hak_malloc_slow(size_t cls);                  /* the hot list is empty, or damaged */
HAK_HIDDEN void *hak_malloc_large(size_t size);                /* above HAK_SMALL_MAX */
HAK_HIDDEN void hak_free_slow(hak_block *p, size_t cls);       /* p is on no list yet; cls 0: large, foreign, checked */
#ifdef HAK_BUILD_OBSERVE
HAK_HIDDEN void hak_count_fast(int is_free);
#else
#define hak_count_fast(is_free) ((void)0)
#endif

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

/* FAST: pop the hot list of a class. SLOW: it is empty, damaged, or its first block is not this list's. */
static inline void *hak_alloc_class(size_t c) {
    HAK_OPAQUE(c);
    hak_block *p = hak_tls.head[c];
    hak_returned(p);
#if HAK_CHECKS
    hak_block *next = (hak_block *)(p->mac ^ hak_tls.key[c]);
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

/* FAST: push the hot list of the class. SLOW: it is full, or p is its first block. Class 0 needs no test: its list has no room, ever.
 * To the checks a pointer that is no multiple of 16 belongs to no unit: its low bits come out on top. */
static inline void hakmem_free(void *v) {
    hak_block *p = (hak_block *)v;
    uintptr_t at = (uintptr_t)p - hak_arena_base;
#if HAK_CHECKS
    at = at >> 4 | at << (sizeof at * 8 - 4);
    size_t u = at >> (HAK_UNIT_SHIFT - 4);
#else
    size_t u = at >> HAK_UNIT_SHIFT;
#endif
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
    hak_block *head = hak_tls.head[c];
#if HAK_CHECKS
    if (HAK_UNLIKELY(p == head)) {
        hak_free_slow(p, c);
        return;
    }
    HAK_OPAQUE(c);
    /* Stores only: p may be cold. Were it on another list, its link would no longer agree there. */
    p->mac = hak_tls.key[c] ^ (uintptr_t)head;
#endif
    p->next = head;
    HAK_OPAQUE(c);
    hak_listed();
    hak_tls.head[c] = p;
    hak_count_fast(1);
}

#ifdef HAKMEM_INLINE_REPLACE
#define malloc(size) hakmem_malloc(size)
#define free(p) hakmem_free(p)
#endif
#endif
