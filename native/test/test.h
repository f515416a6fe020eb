/* What every C test shares. One source serves two worlds: A(malloc) is malloc where hakmem carries the real names (linked or
 * preloaded), and hak_malloc where a sanitizer needs malloc for itself (-DHAK_PREFIXED). A failed check ends the program. */
#ifndef HAK_TEST_H
#define HAK_TEST_H

#include <errno.h>
#include <malloc.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef HAK_PREFIXED
#include "hakmem.h"
#define A(name) hak_##name
#else
#define A(name) name
#endif

/* hakmem walks its heap and holds it against its invariants; the system's allocator has no such thing. */
extern int hakmem_check(void) __attribute__((weak));

#define CHECK(condition)                                                            \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "not ok: %s:%d: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                \
        }                                                                           \
    } while (0)

#define RUN(test)                                    \
    do {                                             \
        test();                                      \
        CHECK(!hakmem_check || hakmem_check() == 1); \
        printf("ok %s\n", #test);                    \
        fflush(stdout);                              \
    } while (0)

#define SKIP(test, why) printf("skip %s: %s\n", #test, why)

/* Every word of a block depends on its key and place, so that two blocks that overlap cannot both look whole. */
static inline uint64_t pattern_word(uint32_t key, size_t i) { return (key | (uint64_t)i << 32 | 1) * UINT64_C(0x9E3779B97F4A7C15); }

static inline void fill(void *block, size_t size, uint32_t key) {
    uint8_t *at = block;
    uint64_t word;
    size_t i = 0;
    for (; i + sizeof word <= size; i += sizeof word) word = pattern_word(key, i), memcpy(at + i, &word, sizeof word);
    word = pattern_word(key, i);
    memcpy(at + i, &word, size - i);
}

static inline bool is_filled(const void *block, size_t size, uint32_t key) {
    const uint8_t *at = block;
    uint64_t word;
    size_t i = 0;
    for (; i + sizeof word <= size; i += sizeof word) {
        memcpy(&word, at + i, sizeof word);
        if (word != pattern_word(key, i)) return false;
    }
    word = pattern_word(key, i);
    return memcmp(at + i, &word, size - i) == 0;
}

static inline bool is_zero(const void *block, size_t size) {
    const uint8_t *at = block;
    return size == 0 || (at[0] == 0 && memcmp(at, at + 1, size - 1) == 0);
}

static inline bool is_aligned(const void *p, size_t alignment) { return ((uintptr_t)p & (alignment - 1)) == 0; }

static inline uint32_t next_random(uint32_t *state) {
    uint32_t r = *state;
    r ^= r << 13;
    r ^= r >> 17;
    r ^= r << 5;
    return *state = r;
}

/* Resident KiB of this process, 0 when the kernel does not say. */
static inline long resident_kb(void) {
    long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    if (!statm || fscanf(statm, "%*s %ld", &pages) != 1) pages = 0;
    if (statm) fclose(statm);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

#endif
