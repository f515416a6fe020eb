/* Above the target: a miss is served by what is free on a resident page, in a class that is a little larger if need be. */
#include "counters.h"
#include "giving_back.h"

#include "lean.h"

enum { SLAB = 1 << 16, SIZE = 960, COUNT = SLAB / SIZE, LIKE = 896, UNLIKE = 700 };

static char *blocks[COUNT];

/* A little: above twice the target free memory is not what is too much. */
static void go_above_the_target(void) {
    enum { PIECE = 1 << 20 };
    for (unsigned i = 0; i < 1000 && lean_pressure() != PRESSURE_HIGH; i++) {
        take(PIECE); /* for good */
        (void)lean_excess();
    }
    CHECK(lean_pressure() == PRESSURE_HIGH);
}

static bool among_them(const char *p) { return (uintptr_t)p / SLAB == (uintptr_t)blocks[0] / SLAB; }

/* A slab with every other block free, at odd multiples of 64, and no free page. */
static void make_room(void) {
    for (unsigned i = 0; i < COUNT; i++) {
        CHECK((blocks[i] = A(malloc)(SIZE)));
        CHECK(A(malloc_usable_size)(blocks[i]) == SIZE);
        fill(blocks[i], SIZE, i);
    }
    go_above_the_target();
    for (unsigned i = 0; i < COUNT; i++) {
        if (is_aligned(blocks[i], 128)) continue;
        A(free)(blocks[i]);
        blocks[i] = NULL;
    }
}

static void a_larger_class_serves(void) {
    long before = counted("refill_larger");
    CHECK(lean_pressure() == PRESSURE_HIGH); /* no search came between, which would have found nothing */
    char *like = A(malloc)(LIKE), *unlike = A(malloc)(UNLIKE);
    CHECK(among_them(like) && A(malloc_usable_size)(like) == SIZE);
    CHECK(!among_them(unlike) && A(malloc_usable_size)(unlike) < SIZE);
    CHECK(before < 0 || counted("refill_larger") == before + 1);
    fill(like, SIZE, 1000);
    CHECK(A(realloc)(like, SIZE) == like && is_filled(like, SIZE, 1000));
    A(free)(like);
    A(free)(unlike);
    like = A(calloc)(1, LIKE);
    CHECK(among_them(like) && is_zero(like, LIKE));
    A(free)(like);
}

static void but_not_where_it_is_aligned_less(void) {
    for (size_t align = 32; align <= 128; align *= 2) {
        char *p = A(aligned_alloc)(align, LIKE);
        CHECK(is_aligned(p, align) && among_them(p) == (align < 128));
        A(free)(p);
    }
    CHECK(A(malloc_usable_size)(A(aligned_alloc)(128, LIKE)) == LIKE);
}

static void what_was_there_is_whole(void) {
    for (unsigned i = 0; i < COUNT; i++) {
        CHECK(!blocks[i] || is_filled(blocks[i], SIZE, i));
        A(free)(blocks[i]);
    }
}

int main(int argc, char **argv) {
    (void)argc;
    under_lean(argv, (const char *const[][2]){{"HAKMEM_SS_LEAN_CPU_PERMILLE", "999"},
                                              {"HAKMEM_SS_LEAN_BACKGROUND_MS", "0"},
                                              {"HAKMEM_SS_LEAN_DECAY_MS", "0"},
                                              {NULL}});
    RUN(make_room);
    RUN(a_larger_class_serves);
    RUN(but_not_where_it_is_aligned_less);
    RUN(what_was_there_is_whole);
    return 0;
}
