/* Memory, time and result lines of a driver; options are in options.c. */
#include "bench.h"
#include "epochs.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* The allocator under test may tell about itself; returns the bytes needed, like snprintf. */
extern size_t hakmem_stats_json(char *buf, size_t size) __attribute__((weak));
extern size_t hakmem_counters(uint64_t *counts, size_t size) __attribute__((weak));

enum { MAX_PHASES = 128, MAX_EXTRAS = 64, STATS_BYTES = 32768, COUNTERS = 256 };

typedef struct {
    char name[40];
    double t_s;
    bench_memory memory;
} phase_mark;

typedef struct {
    double seconds, user_s, sys_s;
    int64_t minflt, majflt, nvcsw, nivcsw;
} usage;

static const bench_spec *the_spec;
static bool want_json;
static int64_t prefault_gate, warmup_iterations = -1;
static double started_s;
static bench_memory start_memory;
static phase_mark phases[MAX_PHASES];
static int phase_count;
static struct {
    const char *name, *json; /* json: instead of the value */
    double value;
} extras[MAX_EXTRAS];
static int extra_count;
static usage region_start, timed;
static bool in_region, had_region;
static uint64_t all_ops; /* of all laps */
static uint64_t counts_before[COUNTERS], counts_after[COUNTERS];
static char out_buffer[8192];

void bench_init(int argc, char **argv, const bench_spec *spec) {
    phase_count = extra_count = 0;
    if (the_spec) return; /* a further lap */
    the_spec = spec;
    bench_call_me(spec->driver);
    setvbuf(stdout, out_buffer, _IOFBF, sizeof out_buffer); /* or stdio would take its buffer from the heap under test */
    started_s = bench_now();
    want_json = bench_parse_arguments(argc, argv, spec, bench_lap_options);
    prefault_gate = bench_prefault_gate();
    char first[8];
    snprintf(first, sizeof first, "%d", 1); /* as marks do: what measuring makes resident is there before it begins */
    start_memory = bench_read_memory();
    bench_laps_begin();
}

int64_t bench_warmup(int64_t run) {
    warmup_iterations = prefault_gate < 0 ? run / 10 : prefault_gate;
    return warmup_iterations;
}

/* ---- time ---- */

void bench_phase(const char *format, ...) {
    if (phase_count == MAX_PHASES) bench_die("more than %d phases", MAX_PHASES);
    phase_mark mark;
    va_list args;
    va_start(args, format);
    vsnprintf(mark.name, sizeof mark.name, format, args);
    va_end(args);
    mark.t_s = bench_now() - started_s;
    mark.memory = bench_read_memory();
    phases[phase_count++] = mark;
}

void bench_sleep_ms(double ms) {
    struct timespec pause = {(time_t)(ms / 1e3), 0};
    pause.tv_nsec = (long)((ms - 1e3 * (double)pause.tv_sec) * 1e6);
    while (nanosleep(&pause, &pause) != 0 && errno == EINTR) continue;
}

static usage read_usage(void) {
    struct rusage now;
    getrusage(RUSAGE_SELF, &now);
    return (usage){bench_now(),
                   (double)now.ru_utime.tv_sec + 1e-6 * (double)now.ru_utime.tv_usec,
                   (double)now.ru_stime.tv_sec + 1e-6 * (double)now.ru_stime.tv_usec,
                   now.ru_minflt,
                   now.ru_majflt,
                   now.ru_nvcsw,
                   now.ru_nivcsw};
}

/* Not as text, which would add to the peak that is measured. */
static void take_counts(uint64_t *counts) {
    size_t need = hakmem_counters ? hakmem_counters(counts, COUNTERS) : 0;
    if (need > COUNTERS) bench_die("hakmem_counters needs room for %zu counts, there is room for %d", need, COUNTERS);
}

void bench_timed_begin(void) {
    if (!had_region) take_counts(counts_before);
    had_region = in_region = true;
    region_start = read_usage();
}

void bench_timed_end(void) {
    usage now = read_usage();
    if (!in_region) bench_die("a timed region ends that never began");
    in_region = false;
    timed.seconds += now.seconds - region_start.seconds;
    timed.user_s += now.user_s - region_start.user_s;
    timed.sys_s += now.sys_s - region_start.sys_s;
    timed.minflt += now.minflt - region_start.minflt;
    timed.majflt += now.majflt - region_start.majflt;
    timed.nvcsw += now.nvcsw - region_start.nvcsw;
    timed.nivcsw += now.nivcsw - region_start.nivcsw;
    take_counts(counts_after);
}

void bench_timed_exclude(double seconds) { timed.seconds -= seconds; }

double bench_timed_seconds(void) { return timed.seconds; }

/* ---- touching ---- */

enum bench_touch bench_touch_named(const char *name) {
    if (strcmp(name, "none") == 0) return BENCH_TOUCH_NONE;
    if (strcmp(name, "first") == 0) return BENCH_TOUCH_FIRST;
    return strcmp(name, "page") == 0 ? BENCH_TOUCH_PAGE : BENCH_TOUCH_FULL;
}

void bench_touch(void *p, size_t begin, size_t end, enum bench_touch how) {
    volatile char *bytes = p;
    if (how == BENCH_TOUCH_FULL) memset((char *)p + begin, 0x5A, end - begin);
    if (how == BENCH_TOUCH_FIRST && begin < end) bytes[begin] = 1;
    if (how == BENCH_TOUCH_PAGE)
        for (size_t at = begin; at < end; at += 4096) bytes[at] = 1;
}

/* ---- the result ---- */

void bench_extra(const char *name, double value) {
    if (extra_count == MAX_EXTRAS) bench_die("more than %d extra figures", MAX_EXTRAS);
    extras[extra_count].name = name;
    extras[extra_count++].value = value;
}

void bench_extra_json(const char *name, const char *json) {
    bench_extra(name, 0);
    extras[extra_count - 1].json = json;
}

static void put_string(const char *text) {
    putchar('"');
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') printf("\\%c", c);
        else if (c < 0x20) printf("\\u%04x", c);
        else putchar(c);
    }
    putchar('"');
}

/* -1 stands for what the kernel does not say. */
static void put_kb(const char *name, int64_t kb) {
    if (kb < 0) printf(",\"%s\":null", name);
    else printf(",\"%s\":%" PRId64, name, kb);
}

static void put_arguments(void) {
    const char *comma = "";
    printf("\"args\":{");
    for (const bench_option *option = the_spec->options; option->name; option++, comma = ",") {
        printf("%s\"%s\":", comma, option->name);
        if (option->number) printf("%" PRId64, *option->number);
        if (option->real) printf("%.15g", *option->real);
        if (option->text && *option->text) put_string(*option->text);
        if (option->text && !*option->text) printf("null");
    }
    putchar('}');
}

static void put_phases(void) {
    printf("\"phases\":[");
    for (int i = 0; i < phase_count; i++) {
        const phase_mark *mark = &phases[i];
        printf("%s{\"name\":\"%s\",\"t_s\":%.6f", i ? "," : "", mark->name, mark->t_s);
        put_kb("rss_kb", mark->memory.rss_kb);
        put_kb("lazyfree_kb", mark->memory.lazyfree_kb);
        put_kb("anon_kb", mark->memory.anon_kb);
        put_kb("peak_rss_kb", mark->memory.peak_rss_kb);
        putchar('}');
    }
    putchar(']');
}

/* The name of the counter that `at` leads to in flat `"name":integer` pairs; NULL at the end of the object. */
static const char *next_counter(const char *at, int *length) {
    at += strcspn(at, "\"}");
    if (*at != '"') return NULL;
    *length = (int)strcspn(at + 1, "\"");
    return at + 1;
}

static void put_allocator(void) {
    static char text[STATS_BYTES];
    const char *key = "\"counters\":{", *at;
    int length = 0;
    if (!hakmem_stats_json) {
        printf("\"allocator\":null");
        return;
    }
    size_t need = hakmem_stats_json(text, sizeof text);
    if (need >= sizeof text) bench_die("hakmem_stats_json needs %zu bytes, there are %zu", need, sizeof text);
    if (!(at = strstr(text, key))) bench_die("hakmem_stats_json names no counters");
    printf("\"allocator\":%.*s,\"timed\":{", (int)(need - 1), text);
    at += strlen(key);
    for (int i = 0; hakmem_counters && i < COUNTERS && (at = next_counter(at, &length)); i++, at += length + 1)
        printf("%s\"%.*s\":%" PRIu64, i ? "," : "", length, at, counts_after[i] - counts_before[i]);
    printf("}}");
}

static void put_json(uint64_t ops, double ops_per_s, int64_t peak_kb) {
    printf("{\"hakmem_bench\":1,\"driver\":\"%s\",", the_spec->driver);
    put_arguments();
    printf(",\"ops\":%" PRIu64 ",\"seconds\":%.9f,\"ops_per_s\":%.1f", ops, timed.seconds, ops_per_s);
    put_kb("peak_rss_kb", peak_kb);
    put_kb("start_rss_kb", start_memory.rss_kb);
    putchar(',');
    put_phases();
    printf(",\"timed\":{\"user_s\":%.6f,\"sys_s\":%.6f,\"minflt\":%" PRId64 ",\"majflt\":%" PRId64 ",\"nvcsw\":%" PRId64
           ",\"nivcsw\":%" PRId64 "},\"extra\":{",
           timed.user_s, timed.sys_s, timed.minflt, timed.majflt, timed.nvcsw, timed.nivcsw);
    for (int i = 0; i < extra_count; i++) {
        printf("%s\"%s\":", i ? "," : "", extras[i].name);
        if (extras[i].json) printf("%s", extras[i].json);
        else printf("%.15g", extras[i].value);
    }
    printf("},");
    put_allocator();
    printf("}\n");
}

static double told_live_kb(void) {
    for (int i = 0; i < extra_count; i++)
        if (strcmp(extras[i].name, "live_kb") == 0) return extras[i].value;
    return -1;
}

int bench_report(uint64_t ops, uint64_t iter, uint64_t ws) {
    all_ops += ops;
    if (bench_lap_ends(all_ops, timed.seconds, phase_count ? phases[phase_count - 1].memory : bench_read_memory(), told_live_kb()))
        return 0;
    if (bench_laps.laps) {
        bench_extra("laps", bench_laps.laps);
        bench_extra("epochs", bench_laps.epochs);
        bench_extra("stopped_early", bench_laps.stopped_early);
    }
    double ops_per_s = timed.seconds > 0 ? (double)all_ops / timed.seconds : 0;
    int64_t peak_kb = bench_read_memory().peak_rss_kb;
    if (warmup_iterations >= 0) bench_extra("warmup_iterations", (double)warmup_iterations);
    printf("Throughput = %.0f ops/s [iter=%" PRIu64 " ws=%" PRIu64 "] time=%.3fs\n", ops_per_s, iter, ws, timed.seconds);
    printf("[RSS] max_kb=%" PRId64 "\n", peak_kb);
    if (want_json) put_json(all_ops, ops_per_s, peak_kb);
    if (fflush(stdout) != 0) return 1;
    return 0;
}

void bench_start_thread(void *(*work)(void *), void *argument) {
    pthread_attr_t detached;
    pthread_t id;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&id, &detached, work, argument) != 0) bench_die("cannot start a thread");
    pthread_attr_destroy(&detached);
}

int main(int argc, char **argv) {
    int status;
    do status = bench_main(argc, argv);
    while (status == 0 && bench_laps_go_on());
    return status;
}
