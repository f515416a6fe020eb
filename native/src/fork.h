/* fork: a child begins with whole heaps, whatever other threads of its parent were in the midst of.
 *
 * From fork's first handler to its last the forking thread holds every lock and takes none (hak_holds_all): handlers of other libraries may allocate
 * in between, in any order of registration.
 *
 * Invariant: whoever takes a lock while the process has more than one thread has called fork_expect() before. Not sooner: in a process with one
 * thread nobody is in the midst of anything, and libc's list of handlers would make 64 KB of its constants resident.
 */
#ifndef HAK_FORK_H
#define HAK_FORK_H

#include "base.h"

extern HIDDEN bool hak_fork_handled;
extern char __libc_single_threaded __attribute__((weak)); /* glibc of 2020 or later; where it is missing, never */

void fork_handle(void);
static inline void fork_expect(void) {
    if (unlikely(!peek(&hak_fork_handled)) && (!&__libc_single_threaded || !__libc_single_threaded)) fork_handle();
}

#endif
