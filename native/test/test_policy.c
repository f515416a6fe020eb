/* The arithmetic that decides what is kept and what goes back. Every expected value is derived by hand; time is an argument. */
#include "policy.h"
#include "test.h"

#define MS UINT64_C(1000000)
#define KIB ((size_t)1024)

static void excess_is_what_stands_above_the_target(void) {
    CHECK(policy_excess(10 * MIB, 0) == 0);
    CHECK(policy_excess(10 * MIB, policy_all(2 * MIB, 8 * MIB)) == 0); /* a ceiling may be reached */
    CHECK(policy_excess(10 * MIB, policy_all(2 * MIB, 8 * MIB + 1)) == 1);
    CHECK(policy_excess(1 * MIB, policy_all(3 * MIB, 0)) == 2 * MIB); /* what the program had before counts */
    CHECK(policy_all(-(ptrdiff_t)(2 * MIB), 8 * MIB) == 6 * MIB);     /* what it has not touched does not */
    CHECK(policy_all(-(ptrdiff_t)(2 * MIB), 1 * MIB) == 0);           /* and is gone, which others do not know yet */
}

static void a_purse_holds_its_share_of_ten_seconds(void) {
    policy_purse purse = {0};
    uint64_t start = 5 * POLICY_WINDOW_NS;
    CHECK(policy_wait(&purse, start, 50) == 0); /* 50 thousandths of 10 s are 500 ms, half of it at once */
    policy_spent(&purse, 250 * MS - 1);
    CHECK(policy_wait(&purse, start, 50) == 0);
    policy_spent(&purse, 1);
    CHECK(policy_wait(&purse, start, 50) / MS == 500); /* 25 ms a second: 12.5 are to be earned */
    CHECK(policy_wait(&purse, start + 400 * MS, 50) / MS == 100);
    CHECK(policy_wait(&purse, start + 501 * MS, 50) == 0);
    policy_spent(&purse, 10 * MS);
    CHECK(policy_wait(&purse, start + 501 * MS, 50) == 0); /* not dry: on to the limit */
    policy_spent(&purse, 20 * MS);
    CHECK(policy_wait(&purse, start + 501 * MS, 50) > 0);
    CHECK(policy_wait(&purse, start + 4 * POLICY_WINDOW_NS, 50) == 0); /* a long pause earns no more than everything */
    for (unsigned i = 0; i < ACCOUNTS; i++) CHECK(purse.owed[i] == 0 && !purse.dry[i]);
    policy_spent(&purse, 300 * MS);
    CHECK(policy_wait(&purse, start + 4 * POLICY_WINDOW_NS - 4 * MS, 50) > 0); /* a clock that is a tick late */
    CHECK(policy_wait(&purse, start + 8 * POLICY_WINDOW_NS, 50) == 0);
    start += 4 * POLICY_WINDOW_NS;
    policy_spent(&purse, 5 * MS);
    CHECK(policy_wait(&purse, start + 4 * POLICY_WINDOW_NS, 1) / MS == 500); /* 10 ms, 5 at once, 0.5 a second */
    CHECK(policy_wait(&purse, start + 4 * POLICY_WINDOW_NS, 1000) == 0);
}

/* Whoever always spends 1 ms when allowed spends the share of each 10 s and no more, and never pauses for long. */
static void a_purse_is_spent_evenly(void) {
    policy_purse purse = {0};
    static uint64_t spent[600]; /* ms, by tenths of a second */
    uint64_t longest = 0, last = 0;
    for (uint64_t now = 0; now < 60000; now++) {
        uint64_t at = POLICY_WINDOW_NS + now * MS, wait = policy_wait(&purse, at, 50);
        if (wait) {
            policy_purse later = purse; /* that is how long */
            CHECK(policy_wait(&later, at + wait, 50) == 0);
            continue;
        }
        policy_spent(&purse, MS);
        spent[now / 100]++;
        if (now - last > longest) longest = now - last;
        last = now;
    }
    for (size_t from = 0; from + 100 <= 600; from++) {
        uint64_t sum = 0;
        for (size_t i = from; i < from + 100; i++) sum += spent[i];
        CHECK(sum <= 501 && sum >= 225); /* the last one begins at the limit */
        CHECK(from < 200 || sum >= 450); /* the burst is forgotten */
    }
    CHECK(longest < 550);
}

/* Whoever needs nine tenths of the share all the time is never refused, and may still have a burst. */
static void a_purse_has_room_for_what_goes_on(void) {
    policy_purse purse = {0};
    for (uint64_t now = 0; now < 60000; now += 100) {
        CHECK(policy_wait(&purse, POLICY_WINDOW_NS + now * MS, 50) == 0);
        policy_spent(&purse, 9 * MS / 2);
    }
    purse = (policy_purse){0};
    for (uint64_t now = 0; now < 60000; now += 100) {
        CHECK(policy_wait(&purse, POLICY_WINDOW_NS + now * MS, 50) == 0);
        policy_spent(&purse, now == 30000 ? 200 * MS : 2 * MS);
    }
}

static void looks_take_no_more_than_their_share(void) {
    CHECK(policy_pause(500 * MS, 25 * MS, 50) == 500 * MS);
    CHECK(policy_pause(500 * MS, 26 * MS, 50) == 520 * MS);
    CHECK(policy_pause(1 * MS, 2 * MS, 1000) == 2 * MS);
    CHECK(policy_pause(0, MS, 50) == 0); /* without a pause */
}

static void a_pulse_is_the_mean_of_its_gaps(void) {
    policy_pulse pulse = {0};
    policy_beat(&pulse, 1000 * MS);
    CHECK(pulse.last == 1000 * MS && pulse.mean_gap == 0); /* one event has no gap */
    policy_beat(&pulse, 1008 * MS);
    CHECK(pulse.mean_gap == 8 * MS);
    policy_beat(&pulse, 1024 * MS); /* (8 * 7 + 16) / 8 */
    CHECK(pulse.mean_gap == 9 * MS && pulse.last == 1024 * MS);
}

static void a_fixed_reserve_is_what_was_said(void) {
    policy_pulse pulse = {0};
    for (int mode = 0; mode <= 2; mode++) {
        CHECK(policy_reserve(mode, &pulse, 0) == (unsigned)mode);
        CHECK(policy_reserve(mode, &pulse, 3600000 * MS) == (unsigned)mode);
    }
}

static void an_adaptive_reserve_follows_the_pulse(void) {
    enum { ADAPTIVE = 3 };
    policy_pulse pulse = {.last = 100 * MS, .mean_gap = 0};
    CHECK(policy_reserve(ADAPTIVE, &pulse, 101 * MS) == 1);
    pulse.mean_gap = 1 * MS - 1; /* more than one event a ms: busy */
    CHECK(policy_reserve(ADAPTIVE, &pulse, 101 * MS) == 2);
    pulse.mean_gap = 1 * MS;
    CHECK(policy_reserve(ADAPTIVE, &pulse, 101 * MS) == 1);
    CHECK(policy_reserve(ADAPTIVE, &pulse, 110 * MS) == 1); /* for 10 ms, not over */
    CHECK(policy_reserve(ADAPTIVE, &pulse, 110 * MS + 1) == 0);
    pulse.mean_gap = 1;
    CHECK(policy_reserve(ADAPTIVE, &pulse, 110 * MS + 1) == 0); /* idle overrules busy */
}

static void pressure_lets_go_well_below_the_target(void) {
    size_t target = 8 * MIB;
    CHECK(policy_press(PRESSURE_NONE, target, 8 * MIB, false) == PRESSURE_LEAN);
    CHECK(policy_press(PRESSURE_LEAN, target, 8 * MIB, false) == PRESSURE_LEAN);
    CHECK(policy_press(PRESSURE_LEAN, target, 8 * MIB + 1, false) == PRESSURE_HIGH);
    CHECK(policy_press(PRESSURE_HIGH, target, 7 * MIB + 1, false) == PRESSURE_HIGH); /* seven eighths */
    CHECK(policy_press(PRESSURE_HIGH, target, 7 * MIB, false) == PRESSURE_LEAN);
    CHECK(policy_press(PRESSURE_LEAN, target, 7 * MIB + 1, false) == PRESSURE_LEAN);
    CHECK(policy_press(PRESSURE_HIGH, target, 10 * MIB + 1, true) == PRESSURE_NONE); /* futile */
    CHECK(policy_press(PRESSURE_HIGH, target, 10 * MIB, true) == PRESSURE_HIGH);     /* caches may still make the difference */
    CHECK(policy_press(PRESSURE_HIGH, target, 16 * MIB + 1, false) == PRESSURE_HIGH);
    CHECK(policy_press(PRESSURE_HIGH, target, 16 * MIB + 2, false) ==
          PRESSURE_LEAN); /* twice the target: caches are not what is too much */
    CHECK(policy_press(PRESSURE_HIGH, 30 * MIB, 31 * MIB, true) == PRESSURE_NONE); /* a large target is not worth it */
}

static void a_cache_holds_what_the_table_says(void) {
    static const unsigned table[8] = {2048, 1024, 768, 512, 256, 256, 128, 64};
    for (int octave = 0; octave < 8; octave++) {
        size_t size = (size_t)16 << octave;
        CHECK(policy_cap(size, octave, 100, PRESSURE_NONE) == table[octave]);
        CHECK(policy_cap(size, octave, 400, PRESSURE_NONE) == 4 * table[octave]);
        CHECK(policy_cap(size, octave, 50, PRESSURE_NONE) == table[octave] / 2);
    }
    CHECK(policy_cap(4096, 8, 100, PRESSURE_NONE) == 64); /* 256 KiB above the octaves */
    CHECK(policy_cap(32768, 8, 100, PRESSURE_NONE) == 8);
    CHECK(policy_cap(32768, 8, 1, PRESSURE_NONE) == 2); /* a list of one would overflow at each free */
    CHECK(policy_cap(2048, 7, 1, PRESSURE_NONE) == 2);
}

static void lean_keeps_caches_small(void) {
    CHECK(policy_cap(16, 0, 100, PRESSURE_LEAN) == 512); /* 8 KiB */
    CHECK(policy_cap(16, 0, 100, PRESSURE_HIGH) == 64); /* 1 KiB */
    CHECK(policy_cap(2048, 7, 100, PRESSURE_LEAN) == 8); /* 4 would fit, 8 are always allowed */
    CHECK(policy_cap(2048, 7, 100, PRESSURE_HIGH) == 1);
    CHECK(policy_may_serve(896, 1024) && policy_may_serve(896, 1120) && !policy_may_serve(896, 1121));
    CHECK(policy_caches(1024, PRESSURE_HIGH) && !policy_caches(1152, PRESSURE_HIGH) && policy_caches(32768, PRESSURE_LEAN));
    CHECK(policy_cap(32768, 8, 100, PRESSURE_LEAN) == 4); /* never more than without pressure */
    CHECK(policy_cap(16, 0, 10, PRESSURE_LEAN) == 204);   /* 2048 / 10: the scaled table is less than 8 KiB */
}

static void a_cache_that_misses_grows_and_another_shrinks(void) {
    CHECK(policy_adapt(8, 8, 64, true) == 16);
    CHECK(policy_adapt(16, 8, 64, false) == 8);
    CHECK(policy_adapt(8, 8, 64, false) == 8);
    CHECK(policy_adapt(48, 8, 64, true) == 64);
    CHECK(policy_adapt(64, 8, 64, true) == 64);
    CHECK(policy_adapt(100, 8, 64, false) == 50);
}

static void a_search_for_free_pages_repays(void) {
    size_t smallest = 64 * KIB;
    CHECK(policy_step(smallest, smallest, 0, MIB, MIB) == smallest);
    CHECK(policy_step(smallest, smallest, 2 * MIB, MIB, MIB) == smallest); /* a thirty-second */
    CHECK(policy_step(smallest, smallest, 64 * MIB, MIB, MIB) == 2 * MIB);
    CHECK(policy_step(smallest, smallest, 64 * MIB, MIB, 0) == 2 * MIB);
}

static void a_search_that_finds_little_comes_less_often(void) {
    size_t smallest = 64 * KIB, step = smallest;
    for (size_t expected = 128 * KIB; expected <= 512 * KIB; expected *= 2) {
        step = policy_step(step, smallest, 4 * MIB, step, step / 16);
        CHECK(step == expected);
    }
    CHECK(policy_step(step, smallest, 4 * MIB, step, 0) == 512 * KIB);
    CHECK(policy_step(step, smallest, MIB, step, 0) == 256 * KIB); /* a quarter of what is resident */
    CHECK(policy_step(step, smallest, 64 * KIB, step, 0) == smallest);
    CHECK(policy_step(step, smallest, 4 * MIB, step, step / 16 + 1) == 128 * KIB);
    CHECK(policy_step(smallest, smallest, 12 * MIB, step, 0) == 384 * KIB); /* a thirty-second at least */
    CHECK(policy_step(256 * KIB, smallest, 4 * MIB, 16, 0) == 256 * KIB);   /* at rest, where next to nothing was freed */
    CHECK(policy_step(6 * MIB, smallest, 3 * MIB, step, 0) == 512 * KIB); /* much was resident before */
}

static void a_miss_fetches_a_page_or_so(void) {
    CHECK(policy_batch(64, 4096, 512) == 64);
    CHECK(policy_batch(16, 4096, 2048) == 128); /* 256 would fit */
    CHECK(policy_batch(16, 4096, 100) == 50);   /* half the cap, so that a free does not overflow at once */
    CHECK(policy_batch(8192, 4096, 16) == 1);
    CHECK(policy_batch(16, 4096, 2) == 1);
    CHECK(policy_batch(16, 4096, 1) == 1);
}

static void a_fall_is_told_once_for_each_eighth(void) {
    size_t level = 0;
    CHECK(!policy_fell(&level, 0));
    CHECK(!policy_fell(&level, 800 * KIB)); /* growth only sets the mark */
    CHECK(!policy_fell(&level, 700 * KIB));
    CHECK(policy_fell(&level, 700 * KIB - 1));
    CHECK(!policy_fell(&level, 700 * KIB - 1)); /* told */
    CHECK(!policy_fell(&level, 650 * KIB));
    CHECK(policy_fell(&level, 612 * KIB));
    for (int i = 0; i < 100; i++) CHECK(!policy_fell(&level, (612 + (i & 1) * 20) * KIB)); /* to and fro is no fall */
    CHECK(!policy_fell(&level, 8 * MIB));
    CHECK(policy_fell(&level, 6 * MIB) && policy_fell(&level, 0) && !policy_fell(&level, 0));
}

int main(void) {
    RUN(a_fall_is_told_once_for_each_eighth);
    RUN(excess_is_what_stands_above_the_target);
    RUN(a_purse_holds_its_share_of_ten_seconds);
    RUN(a_purse_is_spent_evenly);
    RUN(a_purse_has_room_for_what_goes_on);
    RUN(looks_take_no_more_than_their_share);
    RUN(a_pulse_is_the_mean_of_its_gaps);
    RUN(a_fixed_reserve_is_what_was_said);
    RUN(an_adaptive_reserve_follows_the_pulse);
    RUN(pressure_lets_go_well_below_the_target);
    RUN(a_cache_holds_what_the_table_says);
    RUN(lean_keeps_caches_small);
    RUN(a_cache_that_misses_grows_and_another_shrinks);
    RUN(a_search_for_free_pages_repays);
    RUN(a_search_that_finds_little_comes_less_often);
    RUN(a_miss_fetches_a_page_or_so);
    return 0;
}
