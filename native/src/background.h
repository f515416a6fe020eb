/* background: a thread of our own that looks after memory while the program does not allocate (gate SS_LEAN_BACKGROUND_MS, off by default).
 *
 * It takes back idle threads' caches and gives free pages back, as activity would. All signals are blocked in it; it allocates nothing. A child of
 * fork starts its own when it first misses. Programs that must have one thread (unshare, setns) cannot use it.
 */
#ifndef HAK_BACKGROUND_H
#define HAK_BACKGROUND_H

#include "base.h"

void background_start(void); /* once libc is ready; nothing where the gate is off or the thread runs */
void background_resume(void); /* the same, in a process that has had one: after fork */
void background_forked(void); /* in the child */
void background_stop(void); /* at exit; waits for it */

#endif
