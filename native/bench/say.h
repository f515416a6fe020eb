/* How a driver ends with a word on stderr. The ground: includes no other header of ours. */
#ifndef SAY_H
#define SAY_H

void bench_call_me(const char *driver); /* before the others; not copied */
_Noreturn void bench_refuse(const char *format, ...) __attribute__((format(printf, 1, 2))); /* bad arguments: status 2 */
_Noreturn void bench_die(const char *format, ...) __attribute__((format(printf, 1, 2)));    /* anything else: status 1 */

#endif
