/* What the misuse programs share: each holds one bug and expects the allocator to end it by one line and SIGABRT.
 * The first line of a program tells the runner what to expect:
 *
 *   // expect: at once "regex"      the line comes before the program goes on behind the bug
 *   // expect: by flush "regex"     or at the latest when the caches have been flushed
 *
 * A program that is not stopped says "survived" and exits with 0. */
#ifndef HAK_MISUSE_H
#define HAK_MISUSE_H

#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void *run_thread(void *(*work)(void *), void *argument) {
    pthread_t id;
    void *result;
    if (pthread_create(&id, NULL, work, argument) != 0 || pthread_join(id, &result) != 0) exit(3);
    return result;
}

/* Frees more blocks of every size than any cache holds. */
static void flush_caches(void) {
    enum { BLOCKS = 40000, BYTES = 16 << 20 };
    static void *blocks[BLOCKS];
    for (size_t size = 16; size <= 32768; size *= 2) {
        size_t count = BYTES / size < BLOCKS ? BYTES / size : BLOCKS;
        for (size_t i = 0; i < count; i++) blocks[i] = malloc(size);
        for (size_t i = 0; i < count; i++) free(blocks[i]);
    }
}

/* The program went on behind its bug. */
static int survived(void) {
    if (write(STDOUT_FILENO, "survived\n", 9) != 9) return 3;
    flush_caches();
    return 0;
}

#endif
