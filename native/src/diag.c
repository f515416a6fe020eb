#include "diag.h"

#include "base.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void write_line(const char *prefix, const char *fmt, va_list ap) {
    int saved = errno;
    char line[400];
    int n = snprintf(line, sizeof line, "%s", prefix);
    int m = vsnprintf(line + n, sizeof line - (size_t)n - 1, fmt, ap); /* numbers and strings only: glibc allocates nothing */
    size_t len = (size_t)n + (m < 0 ? 0 : (size_t)m);
    if (len > sizeof line - 2) len = sizeof line - 2;
    for (size_t i = 0; i < len; i++) /* it quotes the environment, and is one line whatever stands there */
        if ((unsigned char)line[i] < ' ' || line[i] == 127) line[i] = '?';
    line[len] = '\n';
    int cancel = cancel_off();
    ssize_t ignored = write(STDERR_FILENO, line, len + 1);
    (void)ignored;
    cancel_back(cancel);
    errno = saved;
}

COLD void hak_msg(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    write_line("hakmem: ", fmt, ap);
    va_end(ap);
}

COLD void hak_print(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    write_line("", fmt, ap);
    va_end(ap);
}

_Noreturn COLD void hak_fatal(const char *what, const void *p, size_t class_size) {
    if (class_size) hak_msg("%s: pointer %p, class %zu B", what, p, class_size);
    else hak_msg("%s: pointer %p, no class", what, p);
    hak_holds_all = true;
    abort();
}
