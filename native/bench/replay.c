/* Replays a trace on whatever allocator is in place: its threads, its frees across threads in the recorded order, its phases.
 *
 * The trace is read through a small window, so that it adds nothing to the memory that is measured; reading is not timed. Before
 * anything runs the whole file is checked: a damaged trace is refused, it cannot crash the replay.
 *
 * A slot holds a block's pointer. With several threads all work on the same window. The event number k on a slot (its turn) waits until the slot has seen k
 * events: turns stand in the upper bits of the slots. That keeps the recorded order of each slot, and costs a thread nothing when it is its turn already. */
#include "bench.h"
#include "trace_reader.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    WINDOW = 16384,      /* events that threads share; fewer than a turn can tell apart */
    WINDOW_ALONE = 2048, /* of a single thread: stays in its cache */
    TURN_SHIFT = 48,
    SPINS = 2000
};

static const char *path, *wanted_sha256, *touch_name = "first";
static int64_t latency, rss_marks, repeat = 1;

static const bench_option options[] = {
    {.name = "trace", .help = "file, not compressed", .text = &path},
    {.name = "sha256", .help = "of the events, first digits: refuse any other trace", .text = &wanted_sha256},
    {.name = "touch", .help = "of new blocks", .text = &touch_name, .choices = BENCH_TOUCH_CHOICES},
    {.name = "latency", .help = "1: time every single call (adds latency_clock_ns to each)", .number = &latency, .lo = 0, .hi = 1},
    {.name = "repeat",
     .help = "replay it so many times; all is freed in between, untimed",
     .number = &repeat,
     .lo = 1,
     .hi = 1000000},
    {.name = "rss-marks", .help = "so many evenly spread readings of memory", .number = &rss_marks, .lo = 0, .hi = 25},
    {0}};
static const bench_spec spec = {"replay", "Replays a recorded or generated trace.", options, 1};

static trace_event window[WINDOW];

/* ---- windows: from boundary to boundary ---- */

static size_t window_at, window_end; /* events of the window still to be handed out */
static uint64_t done_events;         /* handed out so far */
static uint32_t marks_done;
static int64_t rss_marks_done;
static double read_s;
static bool timing;
static int64_t replays_done; /* warm-up and phases belong to the first one */
static uint16_t *turns;      /* of several threads: how many events each slot has seen */

static uint64_t rss_mark_at(int64_t number) {
    return header.warm + (header.events - header.warm) * (uint64_t)number / (uint64_t)(rss_marks + 1);
}

/* Memory is read outside the timed region. */
static void phase(const char *name, int number) {
    if (timing) bench_timed_end();
    if (number) bench_phase("%s%d", name, number);
    else bench_phase("%s", name);
    if (timing) bench_timed_begin();
}

static uint64_t free_what_is_left(void) {
    uint64_t left = 0;
    for (uint32_t i = 0; i < header.slots; i++) {
        void *p = (void *)(uintptr_t)(slots[i] & ((UINT64_C(1) << TURN_SHIFT) - 1));
        left += p != NULL;
        if (p) free(p);
        if (slots[i]) slots[i] = 0;
        if (turns && turns[i]) turns[i] = 0;
    }
    return left;
}

static void start_again(void) {
    free_what_is_left();
    trace_rewind();
    done_events = marks_done = 0;
}

static void cross_boundaries(void) {
    if (!timing && done_events == header.warm) {
        if (header.warm) phase("warm", 0);
        timing = true;
        bench_timed_begin();
    }
    while (timing && rss_marks_done < rss_marks && done_events >= rss_mark_at(rss_marks_done + 1))
        phase("rss", (int)++rss_marks_done);
}

static size_t next_boundary(size_t limit) {
    uint64_t stop = !timing ? header.warm : UINT64_MAX;
    if (timing && rss_marks_done < rss_marks) stop = rss_mark_at(rss_marks_done + 1);
    if (stop - done_events < limit - window_at) limit = window_at + (size_t)(stop - done_events);
    if (marks_done < header.marks)
        for (size_t i = window_at; i < limit; i++)
            if (window[i].op == TRACE_MARK) return i;
    return limit;
}

static void fill_window(void) {
    size_t want = header.threads > 1 ? WINDOW : WINDOW_ALONE;
    window_at = 0;
    window_end = trace_read(window, want * sizeof *window) / sizeof *window;
    if (window_end == 0) bench_die("%s became shorter", path);
}

static void not_timed(double from) {
    double spent = bench_now() - from;
    read_s += spent;
    if (timing) bench_timed_exclude(spent);
}

/* Finds the next events to replay, [*begin, *end) of the window; false at the end. Nobody else runs meanwhile. */
static bool next_events(size_t *begin, size_t *end) {
    for (;;) {
        cross_boundaries();
        double from = bench_now();
        if (done_events == header.events) {
            if (++replays_done == repeat || header.events == 0) return false;
            start_again();
        }
        if (window_at == window_end) fill_window();
        *begin = window_at;
        *end = window_at = next_boundary(window_end);
        done_events += *end - *begin;
        not_timed(from);
        if (*end > *begin) return true;
        if (replays_done == 0) phase(mark_names[marks_done], 0);
        marks_done++;
        window_at++;
        done_events++;
    }
}

/* ---- one call, and what it cost ---- */

enum { LATENCY_FINE = 16, LATENCY_BUCKETS = 40 * LATENCY_FINE }; /* exact below 32 ns, then 16 buckets an octave */

typedef struct {
    uint64_t counts[2][LATENCY_BUCKETS]; /* of allocating, of freeing */
    uint64_t longest[2];
} histogram;

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void note(histogram *into, bool freeing, int64_t ns) {
    uint64_t value = ns > 0 ? (uint64_t)ns : 0;
    int octave = value < 2 * LATENCY_FINE ? 0 : 59 - __builtin_clzll(value);
    uint64_t bucket = (uint64_t)octave * LATENCY_FINE + (value >> octave);
    into->counts[freeing][bucket < LATENCY_BUCKETS ? bucket : LATENCY_BUCKETS - 1]++;
    if (value > into->longest[freeing]) into->longest[freeing] = value;
}

static double upper_end(int bucket) {
    int octave = bucket < 2 * LATENCY_FINE ? 0 : bucket / LATENCY_FINE - 1;
    return (double)((((uint64_t)bucket - (uint64_t)octave * LATENCY_FINE) + 1) << octave) - 1;
}

static double quantile(const uint64_t *counts, double part) {
    uint64_t total = 0, seen = 0;
    for (int i = 0; i < LATENCY_BUCKETS; i++) total += counts[i];
    for (int i = 0; i < LATENCY_BUCKETS; i++)
        if (total && (double)(seen += counts[i]) >= part * (double)total) return upper_end(i);
    return 0;
}

static inline __attribute__((always_inline)) void *allocate(trace_event event, void *old) {
    switch (event.op) {
    case TRACE_MALLOC: return malloc(event.size);
    case TRACE_CALLOC: return calloc(1, event.size);
    case TRACE_ALIGNED: return aligned_alloc((size_t)1 << event.align, event.size);
    default: return realloc(old, event.size ? event.size : 1); /* 0 bytes would free it */
    }
}

/* Performs one event on the block of its slot and returns the block that the slot holds then. */
static inline __attribute__((always_inline)) void *perform(trace_event event, void *old, enum bench_touch touch, histogram *into) {
    int64_t before = into ? nanoseconds() : 0;
    void *p = NULL;
    if (event.op == TRACE_FREE) free(old);
    else p = allocate(event, old);
    if (into) note(into, event.op == TRACE_FREE, nanoseconds() - before);
    if (event.op != TRACE_FREE && event.size) {
        bench_got(p);
        if (touch == BENCH_TOUCH_FIRST) *(volatile char *)p = 1;
        else if (touch != BENCH_TOUCH_NONE) bench_touch(p, 0, event.size, touch);
    }
    return p;
}

/* ---- one thread ---- */

static inline __attribute__((always_inline)) void run_alone(enum bench_touch touch, histogram *into) {
    void **blocks = (void **)slots;
    size_t begin, end;
    while (next_events(&begin, &end))
        for (size_t i = begin; i < end; i++)
            if (window[i].op != TRACE_EXIT) blocks[window[i].slot] = perform(window[i], blocks[window[i].slot], touch, into);
}

static __attribute__((noinline, aligned(64))) void run_alone_first(void) { run_alone(BENCH_TOUCH_FIRST, NULL); }
static __attribute__((noinline, aligned(64))) void run_alone_any(enum bench_touch touch, histogram *into) {
    run_alone(touch, into);
}

/* ---- several threads on one window ---- */

typedef struct {
    size_t at;           /* of its part of `order` */
    uint64_t generation; /* of the window it works on */
    histogram *into;
} lane;

static lane lanes[TRACE_MAX_THREADS];
static uint16_t order[WINDOW]; /* events of the window by thread */
static size_t parts[TRACE_MAX_THREADS + 1];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved_on = PTHREAD_COND_INITIALIZER;
static _Atomic uint64_t generation;
static _Atomic uint32_t arrived;
static bool finished;  /* written by the last thread to arrive, read by all behind the generation */
static uint32_t ended; /* threads that have seen it; under the mutex */
static enum bench_touch touch_shared;

/* Gives every event its turn (in the upper bits of its size) and every thread its events. */
static void hand_out(size_t begin, size_t end) {
    size_t counts[TRACE_MAX_THREADS + 1] = {0};
    double from = bench_now();
    for (size_t i = begin; i < end; i++) {
        counts[window[i].thread + 1]++;
        if (window[i].op <= TRACE_FREE) window[i].size |= (uint64_t)turns[window[i].slot]++ << TURN_SHIFT;
    }
    for (uint32_t i = 0; i < header.threads; i++) counts[i + 1] += counts[i];
    memcpy(parts, counts, sizeof parts);
    for (size_t i = begin; i < end; i++) order[counts[window[i].thread]++] = (uint16_t)i;
    not_timed(from);
}

static void next_shared_events(void) {
    size_t begin, end;
    finished = !next_events(&begin, &end);
    if (!finished) hand_out(begin, end);
}

/* The last thread to arrive fetches the next events for all. False at the end of the trace. */
static bool next_window(lane *own) {
    uint64_t now = own->generation++;
    if (atomic_fetch_add(&arrived, 1) + 1 == header.threads) {
        next_shared_events();
        atomic_store_explicit(&arrived, 0, memory_order_relaxed);
        pthread_mutex_lock(&mutex);
        atomic_store_explicit(&generation, now + 1, memory_order_release);
        pthread_cond_broadcast(&moved_on);
        pthread_mutex_unlock(&mutex);
    }
    for (int spins = 0; spins < SPINS && atomic_load_explicit(&generation, memory_order_acquire) == now; spins++) continue;
    if (atomic_load_explicit(&generation, memory_order_acquire) == now) {
        pthread_mutex_lock(&mutex);
        while (generation == now) pthread_cond_wait(&moved_on, &mutex);
        pthread_mutex_unlock(&mutex);
    }
    own->at = parts[own - lanes];
    return !finished;
}

static void perform_in_turn(trace_event event, histogram *into) {
    _Atomic uint64_t *slot = &slots[event.slot];
    uint64_t turn = event.size >> TURN_SHIFT, word = atomic_load_explicit(slot, memory_order_acquire);
    for (int spins = 0; word >> TURN_SHIFT != turn; spins++) {
        if (spins >= SPINS) sched_yield();
        word = atomic_load_explicit(slot, memory_order_acquire);
    }
    event.size &= (UINT64_C(1) << TURN_SHIFT) - 1;
    void *p = perform(event, (void *)(uintptr_t)(word & ((UINT64_C(1) << TURN_SHIFT) - 1)), touch_shared, into);
    word = ((turn + 1) << TURN_SHIFT) | (uint64_t)(uintptr_t)p;
    atomic_store_explicit(slot, word, memory_order_release);
}

/* A thread that ends leaves its lane to a new one. */
static void *work(void *argument) {
    lane *own = argument;
    size_t number = (size_t)(own - lanes);
    do {
        while (own->at < parts[number + 1]) {
            trace_event event = window[order[own->at++]];
            if (event.op == TRACE_EXIT) {
                bench_start_thread(work, own);
                return NULL;
            }
            perform_in_turn(event, own->into);
        }
    } while (next_window(own));
    pthread_mutex_lock(&mutex);
    if (++ended == header.threads) pthread_cond_broadcast(&moved_on);
    pthread_mutex_unlock(&mutex);
    return NULL;
}

static void run_shared(enum bench_touch touch) {
    touch_shared = touch;
    if (!turns) turns = trace_reserve(header.slots * sizeof *turns);
    for (uint32_t i = 0; i < header.threads; i++) {
        if (latency && !lanes[i].into) lanes[i].into = trace_reserve(sizeof(histogram));
        bench_start_thread(work, &lanes[i]);
    }
    pthread_mutex_lock(&mutex);
    while (ended < header.threads) pthread_cond_wait(&moved_on, &mutex);
    pthread_mutex_unlock(&mutex);
}

/* ---- the result ---- */

static double clock_cost_ns(void) {
    int64_t least = INT64_MAX;
    for (int i = 0; i < 1000; i++) {
        int64_t before = nanoseconds(), after = nanoseconds();
        if (after - before < least) least = after - before;
    }
    return (double)least;
}

static void tell_latency(histogram *into) {
    static char names[2][4][32];
    static const struct {
        const char *name;
        double part;
    } quantiles[] = {{"p50", 0.5}, {"p99", 0.99}, {"p999", 0.999}, {"p9999", 0.9999}};
    for (uint32_t i = 1; i < header.threads; i++)
        for (int what = 0; what < 2; what++) {
            for (int k = 0; k < LATENCY_BUCKETS; k++) into->counts[what][k] += lanes[i].into->counts[what][k];
            if (lanes[i].into->longest[what] > into->longest[what]) into->longest[what] = lanes[i].into->longest[what];
        }
    for (int what = 0; what < 2; what++)
        for (int k = 0; k < 4; k++) {
            snprintf(names[what][k], sizeof names[what][k], "%s_%s_ns", what ? "free" : "alloc", quantiles[k].name);
            bench_extra(names[what][k], quantile(into->counts[what], quantiles[k].part));
        }
    bench_extra("alloc_max_ns", (double)into->longest[0]);
    bench_extra("free_max_ns", (double)into->longest[1]);
    bench_extra("latency_clock_ns", clock_cost_ns());
}

static void refuse_another_trace(void) {
    char digits[2 * sizeof header.sha256 + 1];
    for (size_t i = 0; i < sizeof header.sha256; i++) snprintf(digits + 2 * i, 3, "%02x", header.sha256[i]);
    if (strncmp(digits, wanted_sha256, strlen(wanted_sha256)) != 0)
        bench_refuse("%s is another trace: its SHA-256 is %s, not %s", path, digits, wanted_sha256);
}

static void back_to_the_start(void) {
    trace_rewind();
    done_events = marks_done = 0;
    rss_marks_done = replays_done = 0;
    window_at = window_end = 0;
    read_s = 0;
    timing = finished = false;
    ended = 0;
    memset(parts, 0, sizeof parts);
    for (uint32_t i = 0; i < header.threads; i++) lanes[i].at = 0;
}

int bench_main(int argc, char **argv) {
    bench_init(argc, argv, &spec);
    if (!path) bench_refuse("which trace? --trace=FILE");
    static histogram *into;
    if (!slots) {
        trace_open(path);
        if (wanted_sha256) refuse_another_trace();
        if (latency && header.threads == 1) into = trace_reserve(sizeof *into);
    } else { /* a further lap */
        back_to_the_start();
    }
    enum bench_touch touch = bench_touch_named(touch_name);
    if (header.threads > 1) run_shared(touch);
    else if (touch == BENCH_TOUCH_FIRST && !into) run_alone_first();
    else run_alone_any(touch, into);
    bench_timed_end();
    bench_phase("done");
    bench_extra("left_blocks", (double)free_what_is_left());
    bench_extra("read_s", read_s);
    if (latency) tell_latency(header.threads > 1 ? lanes[0].into : into);
    return bench_report(timed_ops + (uint64_t)(repeat - 1) * all_ops, header.events, header.slots);
}
