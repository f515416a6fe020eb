#include "say.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static const char *me = "";

void bench_call_me(const char *driver) { me = driver; }

static void say(const char *format, va_list args) {
    fflush(stdout);
    fprintf(stderr, "bench_%s: ", me);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
}

void bench_refuse(const char *format, ...) {
    va_list args;
    va_start(args, format);
    say(format, args);
    _exit(2);
}

void bench_die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    say(format, args);
    _exit(1);
}
