/* Options of a driver, and those that every driver has. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

/* One option: exactly one of number, real, text is set; it points to the default and receives the value. */
typedef struct {
    const char *name;
    const char *help;
    int64_t *number;
    double *real;
    const char **text;
    int64_t lo, hi; /* range of a number or a real, both ends allowed */
    const char *choices; /* of a text, separated by blanks; NULL: any */
} bench_option;

typedef struct {
    const char *driver;
    const char *about;
    const bench_option *options; /* ends with a NULL name */
    int positional; /* so many of the first options may be given without their name */
} bench_spec;

/* Exits with 2 on bad arguments; returns whether --json was given. */
bool bench_parse_arguments(int argc, char **argv, const bench_spec *own, const bench_option *shared);
int64_t bench_prefault_gate(void); /* HAKMEM_BENCH_PREFAULT or its default */

#endif
