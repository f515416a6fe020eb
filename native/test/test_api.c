/* The whole malloc interface, as a user of it may rely on. */
#include "test.h"

#ifndef HAK_PREFIXED
extern void free_sized(void *p, size_t size) __attribute__((weak));
extern void free_aligned_sized(void *p, size_t alignment, size_t size) __attribute__((weak));
#endif

/* Around every size class, page runs and direct mappings. */
static size_t sizes[1024];
static size_t size_count;

static void collect_sizes(void) {
    for (size_t n = 0; n <= 256; n++) sizes[size_count++] = n;
    for (size_t octave = 256; octave < (size_t)1 << 25; octave *= 2)
        for (size_t step = 0; step < 8; step++)
            for (int off = -1; off <= 1; off++) sizes[size_count++] = octave + octave / 8 * step + (size_t)off;
    CHECK(size_count <= sizeof sizes / sizeof *sizes);
}

static void blocks_are_usable_aligned_and_apart(void) {
    for (size_t i = 0; i < size_count; i++) {
        void *a = A(malloc)(sizes[i]), *b = A(malloc)(sizes[i]);
        CHECK(a && b && a != b);
        CHECK(is_aligned(a, 16) && is_aligned(b, 16));
        size_t usable = A(malloc_usable_size)(a);
        CHECK(usable >= sizes[i]);
        size_t end = usable < 1 << 16 ? usable : sizes[i];
        fill(a, end, 1);
        fill(b, sizes[i], 2);
        CHECK(is_filled(a, end, 1) && is_filled(b, sizes[i], 2));
        A(free)(a);
        CHECK(is_filled(b, sizes[i], 2));
        A(free)(b);
    }
}

static void waste_is_bounded(void) {
    for (size_t n = 128; n <= 16000; n += 16) {
        void *p = A(malloc)(n);
        CHECK(A(malloc_usable_size)(p) <= n + n / 4 + 16);
        A(free)(p);
    }
}

static void size_zero_gives_distinct_blocks(void) {
    void *a = A(malloc)(0), *b = A(malloc)(0), *c = A(calloc)(0, 8), *d = A(calloc)(8, 0);
    CHECK(a && b && c && d && a != b && c != d && a != c);
    A(free)(a);
    A(free)(b);
    A(free)(c);
    A(free)(d);
}

static void null_is_accepted(void) {
    A(free)(NULL);
    CHECK(A(malloc_usable_size)(NULL) == 0);
    char *p = A(realloc)(NULL, 100);
    CHECK(p && A(malloc_usable_size)(p) >= 100);
    A(free)(p);
}

static void impossible_sizes_fail_with_enomem(void) {
    static const size_t too_much[] = {(size_t)PTRDIFF_MAX + 1, SIZE_MAX, SIZE_MAX - 15, SIZE_MAX - 4095, SIZE_MAX / 2 + 1};
    for (size_t i = 0; i < sizeof too_much / sizeof *too_much; i++) {
        size_t n = too_much[i];
        void *p = A(malloc)(32), *q = p;
        fill(p, 32, 3);
        errno = 0;
        CHECK(A(malloc)(n) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(A(calloc)(1, n) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(A(realloc)(p, n) == NULL && errno == ENOMEM && is_filled(p, 32, 3));
        errno = 0;
        CHECK(A(aligned_alloc)(64, n & ~(size_t)63) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(A(memalign)(4096, n) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(A(valloc)(n) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(A(pvalloc)(n) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(A(posix_memalign)(&q, 64, n) == ENOMEM && q == p);
        A(free)(p);
    }
}

static void products_that_overflow_fail(void) {
    static const size_t pairs[][2] = {{SIZE_MAX, 2},         {2, SIZE_MAX},
                                      {SIZE_MAX / 2 + 1, 2}, {(size_t)1 << 32, (size_t)1 << 32},
                                      {SIZE_MAX, SIZE_MAX},  {((size_t)1 << 33) + 1, (size_t)1 << 31}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        void *p = A(malloc)(64);
        fill(p, 64, 4);
        errno = 0;
        CHECK(A(calloc)(pairs[i][0], pairs[i][1]) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(A(reallocarray)(p, pairs[i][0], pairs[i][1]) == NULL && errno == ENOMEM && is_filled(p, 64, 4));
        A(free)(p);
    }
    uint32_t *grown = A(reallocarray)(NULL, 100, sizeof *grown);
    CHECK(grown && A(malloc_usable_size)(grown) >= 400);
    A(free)(grown);
}

/* Dirty blocks of every size go back first, so that calloc is served from used memory. */
static void calloc_zeroes_used_memory(void) {
    for (size_t i = 0; i < size_count; i++) {
        if (sizes[i] > (size_t)1 << 22) continue;
        void *dirty[4];
        for (int k = 0; k < 4; k++) {
            dirty[k] = A(malloc)(sizes[i]);
            memset(dirty[k], 0xEE, A(malloc_usable_size)(dirty[k]));
        }
        for (int k = 0; k < 4; k++) A(free)(dirty[k]);
        for (int k = 0; k < 4; k++) {
            dirty[k] = A(calloc)(1, sizes[i]);
            CHECK(dirty[k] && is_zero(dirty[k], sizes[i]));
        }
        for (int k = 0; k < 4; k++) A(free)(dirty[k]);
    }
}

static void realloc_keeps_contents_growing(void) {
    for (size_t step = 1; step <= 4; step++) {
        char *p = NULL;
        size_t size = 0;
        while (size < (size_t)1 << 22) {
            size_t grown = size + 1 + size / (2 * step);
            char *q = A(realloc)(p, grown);
            CHECK(q && is_aligned(q, 16) && is_filled(q, size, (uint32_t)step));
            fill(q, grown, (uint32_t)step);
            p = q;
            size = grown;
        }
        A(free)(p);
    }
}

static void realloc_keeps_contents_shrinking(void) {
    size_t size = (size_t)1 << 24;
    char *p = A(malloc)(size);
    fill(p, size, 9);
    while (size > 1) {
        size -= size / 5 + 1;
        p = A(realloc)(p, size ? size : 1);
        CHECK(p && A(malloc_usable_size)(p) >= size && is_filled(p, size, 9));
    }
    A(free)(p);
}

static void realloc_jumps_between_all_kinds(void) {
    static const size_t kinds[] = {1, 16, 100, 2048, 8000, 32768, 40000, 200000, 1 << 20, 6 << 20, 40 << 20};
    size_t count = sizeof kinds / sizeof *kinds;
    for (size_t from = 0; from < count; from++) {
        for (size_t to = 0; to < count; to++) {
            size_t both = kinds[from] < kinds[to] ? kinds[from] : kinds[to];
            char *p = A(malloc)(kinds[from]);
            fill(p, both, 11);
            char *q = A(realloc)(p, kinds[to]);
            CHECK(q && is_filled(q, both, 11));
            q[kinds[to] - 1] = 1;
            A(free)(q);
        }
    }
}

static void realloc_to_zero_frees_or_shrinks(void) {
    void *p = A(realloc)(A(malloc)(100), 0);
    A(free)(p); /* NULL or a block of no bytes: both are allowed */
}

static void aligned_blocks(void) {
    static const size_t lengths[] = {0, 1, 24, 100, 1024, 5000, 40000, 1 << 20};
    for (size_t alignment = sizeof(void *); alignment <= (size_t)1 << 30; alignment *= 2) {
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            void *p = NULL, *q, *r;
            CHECK(A(posix_memalign)(&p, alignment, lengths[i]) == 0);
            CHECK(p && is_aligned(p, alignment) && A(malloc_usable_size)(p) >= lengths[i]);
            q = A(memalign)(alignment, lengths[i]);
            r = A(aligned_alloc)(alignment, (lengths[i] + alignment - 1) & ~(alignment - 1) & 0xFFFFFFF);
            CHECK(q && r && is_aligned(q, alignment) && is_aligned(r, alignment) && p != q && q != r);
            fill(p, lengths[i], 5);
            fill(q, lengths[i], 6);
            A(free)(r);
            CHECK(is_filled(p, lengths[i], 5) && is_filled(q, lengths[i], 6));
            p = A(realloc)(p, lengths[i] + 5000);
            CHECK(p && is_filled(p, lengths[i], 5));
            A(free)(p);
            A(free)(q);
        }
    }
}

static void bad_alignments_are_refused(void) {
    static const size_t bad[] = {0, 1, 2, 4, 3, 24, 100, sizeof(void *) + 1, ((size_t)1 << 20) - 8};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        void *untouched = &sizes;
        errno = 4321;
        CHECK(A(posix_memalign)(&untouched, bad[i], 64) == EINVAL);
        CHECK(untouched == &sizes && errno == 4321);
    }
}

static void page_aligned_blocks(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t n = 1; n < 10 * page; n += page / 2 + 7) {
        void *p = A(valloc)(n), *q = A(pvalloc)(n);
        CHECK(p && q && is_aligned(p, page) && is_aligned(q, page));
        CHECK(A(malloc_usable_size)(q) >= (n + page - 1) / page * page);
        A(free)(p);
        A(free)(q);
    }
}

static void errno_survives_success(void) {
    for (size_t i = 0; i < size_count; i += 7) {
        errno = 4321;
        void *p = A(malloc)(sizes[i]);
        p = A(realloc)(p, sizes[i] * 2 + 1);
        A(free)(p);
        CHECK(errno == 4321);
    }
}

/* As a program's copy of its own heap does, taken to look for leaks or to report a crash. */
static void a_block_may_hold_what_free_ones_hold(void) {
    enum { COUNT = 10000, SIZE = 64 };
    static char *gone[COUNT], *live[COUNT];
    for (size_t i = 0; i < COUNT; i++) CHECK((gone[i] = A(malloc)(SIZE)) && (live[i] = A(malloc)(SIZE)));
    for (size_t i = 0; i < COUNT; i++) A(free)(gone[i]);
    for (size_t i = 0; i < COUNT; i++)
        for (size_t at = 0; at < SIZE; at++) live[i][at] = *(volatile char *)(gone[i] + at);
    for (size_t i = 0; i < COUNT; i += 2)
        CHECK((live[i] = A(realloc)(live[i], 2 * SIZE)) && A(malloc_usable_size)(live[i + 1]) >= SIZE);
    for (size_t i = 0; i < COUNT; i++) A(free)(live[i]);
}

static void sized_frees(void) {
#ifndef HAK_PREFIXED
    if (!free_sized || !free_aligned_sized) return;
#endif
    for (size_t i = 0; i < size_count; i++) {
        A(free_sized)(A(malloc)(sizes[i]), sizes[i]);
        A(free_aligned_sized)(A(aligned_alloc)(256, (sizes[i] + 255) & ~(size_t)255), 256, (sizes[i] + 255) & ~(size_t)255);
    }
    A(free_sized)(NULL, 10);
    A(free_aligned_sized)(NULL, 64, 64);
}

static void trim_and_figures(void) {
    enum { COUNT = 10000, SIZE = 1000 };
    static char *blocks[COUNT];
    for (int i = 0; i < COUNT; i++) {
        blocks[i] = A(malloc)(SIZE);
        fill(blocks[i], SIZE, (uint32_t)i);
    }
    struct mallinfo2 info = A(mallinfo2)();
    CHECK(info.arena + info.hblkhd >= (size_t)COUNT * SIZE);
    CHECK(info.uordblks >= (size_t)COUNT * SIZE);
    for (int i = 0; i < COUNT; i += 2) A(free)(blocks[i]);
    int released = A(malloc_trim)(0);
    CHECK(released == 0 || released == 1);
    for (int i = 1; i < COUNT; i += 2) {
        CHECK(is_filled(blocks[i], SIZE, (uint32_t)i));
        A(free)(blocks[i]);
    }
    A(malloc_trim)(0);
}

static void info_is_xml(void) {
#ifndef HAK_PREFIXED
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    CHECK(stream && malloc_info(0, stream) == 0);
    fclose(stream);
    CHECK(strncmp(text, "<malloc", 7) == 0 && strstr(text, "</malloc>"));
    free(text);
    CHECK(malloc_info(1, stdout) != 0);
    CHECK(mallopt(M_MMAP_THRESHOLD, 1 << 20) == 1);
#endif
}

/* The figures from before 64 bits: as mallinfo2's where they fit, else as large as can be told. */
static void old_figures(void) {
#ifndef HAK_PREFIXED
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    char *p = malloc(100 << 20);
    CHECK(p);
    struct mallinfo old = mallinfo();
    struct mallinfo2 now = mallinfo2();
    CHECK(old.uordblks == (int)now.uordblks && old.arena == (int)now.arena);
    CHECK(now.uordblks + now.hblkhd >= (size_t)100 << 20);
    free(p);
#endif
}

int main(void) {
    collect_sizes();
    RUN(blocks_are_usable_aligned_and_apart);
    RUN(waste_is_bounded);
    RUN(size_zero_gives_distinct_blocks);
    RUN(null_is_accepted);
    RUN(impossible_sizes_fail_with_enomem);
    RUN(products_that_overflow_fail);
    RUN(calloc_zeroes_used_memory);
    RUN(realloc_keeps_contents_growing);
    RUN(realloc_keeps_contents_shrinking);
    RUN(realloc_jumps_between_all_kinds);
    RUN(realloc_to_zero_frees_or_shrinks);
    RUN(aligned_blocks);
    RUN(bad_alignments_are_refused);
    RUN(page_aligned_blocks);
    RUN(errno_survives_success);
    RUN(a_block_may_hold_what_free_ones_hold);
    RUN(sized_frees);
    RUN(trim_and_figures);
    RUN(info_is_xml);
    RUN(old_figures);
    return 0;
}
