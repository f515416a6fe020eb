/* A long run in epochs, one line of a CSV each: of a driver that knows epochs itself (soak), or of laps, which are one driver again
 * and again in one process. SIGINT and SIGTERM end a run of laps after the lap at work, with a full report. */
#include "epochs.h"

#include "say.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static double laps_seconds, laps_epoch = 5;
static const char *laps_csv;

const bench_option bench_lap_options[] = {
    {.name = "laps-seconds", .help = "run it again and again for so long", .real = &laps_seconds, .lo = 0, .hi = 31536000},
    {.name = "laps-epoch", .help = "seconds of laps that make an epoch", .real = &laps_epoch, .lo = 0, .hi = 86400},
    {.name = "laps-csv", .help = "file for one line an epoch", .text = &laps_csv},
    {0}};

bench_laps_done bench_laps;

static const char *csv_path;
static int csv = -1;
static volatile sig_atomic_t stopping;
static double begin_s, epoch_began_s, timed_before_s;
static uint64_t ops_before;

static void write_csv(const char *text, int length) {
    if (csv >= 0 && write(csv, text, (size_t)length) != length) bench_die("cannot write to '%s': %s", csv_path, strerror(errno));
}

void bench_epochs_open(const char *path) {
    static const char header[] = "epoch,t_s,ops,ops_per_s,rss_mb,lazyfree_mb,peak_rss_mb,stall_max_us,live_mb\n";
    if (!path) return;
    csv_path = path;
    csv = open(csv_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (csv < 0) bench_refuse("cannot open the CSV '%s': %s", csv_path, strerror(errno));
    write_csv(header, sizeof header - 1);
}

/* What is not known stays empty. */
static int put_known(char *to, size_t size, double value) { return snprintf(to, size, value < 0 ? "," : ",%.4f", value); }

void bench_epochs_write(const bench_epoch *epoch) {
    char line[320];
    int length = snprintf(line, 128, "%d,%.3f,%llu,%.1f", epoch->number, epoch->t_s, (unsigned long long)epoch->ops,
                          epoch->took_s > 0 ? (double)epoch->ops / epoch->took_s : 0);
    const double rest[] = {(double)epoch->memory.rss_kb / 1024, (double)epoch->memory.lazyfree_kb / 1024,
                           (double)epoch->memory.peak_rss_kb / 1024, 1e6 * epoch->stall_s, epoch->live_kb / 1024};
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) length += put_known(line + length, 32, rest[i]);
    line[length++] = '\n';
    write_csv(line, length);
}

void bench_epochs_close(void) {
    if (csv >= 0 && close(csv) != 0) bench_die("cannot write to '%s': %s", csv_path, strerror(errno));
    csv = -1;
}

static void stop(int signal_number) {
    (void)signal_number;
    stopping = 1;
}

void bench_laps_begin(void) {
    if (laps_seconds <= 0 || bench_laps.laps > 0) return;
    bench_epochs_open(laps_csv);
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    begin_s = epoch_began_s = bench_now();
}

bool bench_lap_ends(uint64_t ops, double timed_s, bench_memory memory, double live_kb) {
    if (laps_seconds <= 0) return false;
    double now = bench_now();
    bool last = stopping || now - begin_s >= laps_seconds;
    bench_laps.laps++;
    if (last || now - epoch_began_s >= laps_epoch) {
        bench_epochs_write(&(bench_epoch){.number = bench_laps.epochs++,
                                          .t_s = now - begin_s,
                                          .ops = ops - ops_before,
                                          .took_s = timed_s - timed_before_s,
                                          .memory = memory,
                                          .stall_s = -1,
                                          .live_kb = live_kb});
        epoch_began_s = now;
        timed_before_s = timed_s;
        ops_before = ops;
    }
    if (!last) return true;
    bench_epochs_close();
    bench_laps.stopped_early = stopping;
    laps_seconds = 0;
    return false;
}

bool bench_laps_go_on(void) { return laps_seconds > 0; }
