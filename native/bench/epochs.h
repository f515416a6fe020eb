/* Epochs of a long run, and laps. */
#ifndef EPOCHS_H
#define EPOCHS_H

#include "options.h"
#include "process.h"

typedef struct {
    int number;
    double t_s; /* at its end, since the run began */
    uint64_t ops;
    double took_s;
    bench_memory memory;
    double stall_s, live_kb; /* longest batch, bytes in live blocks; below 0: not known */
} bench_epoch;

extern const bench_option bench_lap_options[];

void bench_epochs_open(const char *path); /* NULL: nothing is written */
void bench_epochs_write(const bench_epoch *epoch);
void bench_epochs_close(void);

/* What was done, once the last lap has ended; 0 laps: nobody asked for any. */
typedef struct {
    int laps, epochs;
    bool stopped_early;
} bench_laps_done;
extern bench_laps_done bench_laps;

/* For bench.c: of ops and timed seconds since the first lap; true where another lap follows. */
void bench_laps_begin(void);
bool bench_lap_ends(uint64_t ops, double timed_s, bench_memory memory, double live_kb);
bool bench_laps_go_on(void);

#endif
