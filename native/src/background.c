#include "background.h"

#include "diag.h"
#include "gates.h"
#include "heap.h"

#include <errno.h>
#include <link.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#define STACK_BYTES ((size_t)128 << 10) /* without what the C library lays on it: every thread-local variable there is */

static bool running, stopping, lost_by_fork;
static pthread_t thread;
static hak_lock state_lock = HAK_LOCK_INIT;
static pthread_cond_t stop_asked;

static struct timespec next_look(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t ns = (uint64_t)t.tv_nsec + (uint64_t)gate(G_SS_LEAN_BACKGROUND_MS) * 1000000;
    return (struct timespec){.tv_sec = t.tv_sec + (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
}

static COLD void *look_after_memory(void *unused) {
    /* Of another thread libc would write it to /proc, which the kernel then has to tidy up when a process ends. */
    (void)pthread_setname_np(pthread_self(), "hakmem");
    lock(&state_lock);
    while (!stopping) {
        struct timespec until = next_look();
        if (pthread_cond_timedwait(&stop_asked, &state_lock, &until) != ETIMEDOUT) continue;
        unlock(&state_lock);
        heap_take_idle(NULL);
        slab_purge_if_due(true);
        lock(&state_lock);
    }
    unlock(&state_lock);
    return unused;
}

static COLD int add_thread_locals(struct dl_phdr_info *of, size_t size, void *sum) {
    (void)size;
    for (unsigned i = 0; i < of->dlpi_phnum; i++)
        if (of->dlpi_phdr[i].p_type == PT_TLS) *(size_t *)sum += of->dlpi_phdr[i].p_memsz + of->dlpi_phdr[i].p_align;
    return 0;
}

static COLD bool create(void) {
    static size_t stack; /* not asked again in a child of fork, where a lock of the loader may be held for good */
    pthread_attr_t attr;
    pthread_condattr_t monotonic;
    sigset_t all, saved;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&stop_asked, &monotonic);
    pthread_attr_init(&attr);
    if (!stack) (void)dl_iterate_phdr(add_thread_locals, &stack);
    pthread_attr_setstacksize(&attr, STACK_BYTES + stack);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &saved); /* it inherits the mask */
    int error = pthread_create(&thread, &attr, look_after_memory, NULL);
    pthread_sigmask(SIG_SETMASK, &saved, NULL);
    pthread_attr_destroy(&attr);
    if (error) hak_msg("no background thread (%s); free pages go back on activity only", strerror(error));
    return !error;
}

void background_start(void) {
    int saved = errno;
    if (!lean_releases() || !gate(G_SS_LEAN_BACKGROUND_MS) || __atomic_exchange_n(&running, true, __ATOMIC_ACQ_REL)) return;
    if (!create()) poke(&running, false);
    errno = saved;
}

void background_resume(void) {
    if (likely(!peek(&lost_by_fork)) || !__atomic_exchange_n(&lost_by_fork, false, __ATOMIC_ACQ_REL)) return;
    background_start();
}

void background_forked(void) {
    state_lock = (hak_lock)HAK_LOCK_INIT;
    lost_by_fork = running || lost_by_fork;
    running = false;
}

void background_stop(void) {
    if (!__atomic_exchange_n(&running, false, __ATOMIC_ACQ_REL)) return;
    lock(&state_lock);
    stopping = true;
    pthread_cond_signal(&stop_asked);
    unlock(&state_lock);
    pthread_join(thread, NULL);
}
