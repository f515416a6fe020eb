/* diag: messages that allocate nothing, and the end of a program that misused the heap. A leaf. */
#ifndef HAK_DIAG_H
#define HAK_DIAG_H

#include "base.h"

/* One line "hakmem: ..." to stderr in one write(2); at most 400 bytes; errno is kept. */
void hak_msg(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The same without the prefix: statistics in the user's own formats. */
void hak_print(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* "hakmem: <what>: pointer <p>, class <size> B" (size 0: "no class"), then SIGABRT. */
_Noreturn void hak_fatal(const char *what, const void *p, size_t class_size);

#endif
