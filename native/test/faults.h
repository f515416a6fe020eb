/* Kernel calls that fail when asked to. This program's own mmap, mprotect, madvise and mremap stand before those of libc; the
 * allocator, linked into the program, calls them, and process_madvise through a wrapped syscall(). They act from the very first
 * call of the process on, long before main, so the plan cannot come from arguments: it lies in a file that a parent leaves open
 * under a fixed number and reads again afterwards. */
#ifndef HAK_FAULTS_H
#define HAK_FAULTS_H

#include "test.h"

#include <fcntl.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif

enum { PLAN_FD = 100, FOR_EVER = 1 << 30 };

typedef struct {
    int fail_from, fail_count; /* calls that fail: [fail_from, fail_from + fail_count), counted from 1 */
    int only_madvise, error;
    int calls, madvise_calls;
} fault_plan;

long __real_syscall(long number, ...); /* the linker's names for what it wraps: -Wl,--wrap=syscall */
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f);

static bool fails(bool is_madvise) {
    fault_plan plan;
    if (__real_syscall(SYS_pread64, PLAN_FD, &plan, sizeof plan, 0L) != (long)sizeof plan) return false;
    bool counts = is_madvise || !plan.only_madvise;
    plan.calls += counts;
    plan.madvise_calls += is_madvise;
    bool failing = counts && plan.calls >= plan.fail_from && plan.calls - plan.fail_from < plan.fail_count;
    __real_syscall(SYS_pwrite64, PLAN_FD, &plan, sizeof plan, 0L);
    if (failing) errno = plan.error;
    return failing;
}

void *mmap(void *p, size_t size, int prot, int flags, int fd, off_t offset) {
    if (fails(false)) return MAP_FAILED;
    return (void *)__real_syscall(SYS_mmap, p, size, prot, flags, fd, offset);
}
int mprotect(void *p, size_t size, int prot) { return fails(false) ? -1 : (int)__real_syscall(SYS_mprotect, p, size, prot); }
int madvise(void *p, size_t size, int advice) { return fails(true) ? -1 : (int)__real_syscall(SYS_madvise, p, size, advice); }
void *mremap(void *p, size_t size, size_t new_size, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    void *to = flags & MREMAP_FIXED ? va_arg(rest, void *) : NULL;
    va_end(rest);
    if (fails(false)) return MAP_FAILED;
    return (void *)__real_syscall(SYS_mremap, p, size, new_size, flags, to);
}

long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f) {
    if (number == SYS_process_madvise && fails(true)) return -1;
    return __real_syscall(number, a, b, c, d, e, f);
}

static fault_plan plan_read(void) {
    fault_plan plan;
    CHECK(pread(PLAN_FD, &plan, sizeof plan, 0) == (ssize_t)sizeof plan);
    return plan;
}
static void plan_write(fault_plan plan) { CHECK(pwrite(PLAN_FD, &plan, sizeof plan, 0) == (ssize_t)sizeof plan); }

static void plan_open(void) {
    int fd = (int)__real_syscall(SYS_memfd_create, "faults", 0);
    CHECK(fd >= 0 && dup2(fd, PLAN_FD) == PLAN_FD && close(fd) == 0);
}

/* Run this program anew with one argument, under the plan and NAME=value settings; the plan as it left it. */
static fault_plan run_under(fault_plan plan, const char *argument, const char *const *settings) {
    plan_write(plan);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        for (; *settings; settings++) putenv((char *)(uintptr_t)*settings);
        execl("/proc/self/exe", "test_faults", argument, (char *)NULL);
        _exit(127);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    if (status != 0) {
        fprintf(stderr, "not ok: %s with %d calls from number %d on failing (%s) ended with wait status 0x%x\n", argument,
                plan.fail_count, plan.fail_from, strerror(plan.error), (unsigned)status);
        exit(1);
    }
    return plan_read();
}

#endif
