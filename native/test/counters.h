/* What the allocator has counted so far, by name. */
#ifndef HAK_TEST_COUNTERS_H
#define HAK_TEST_COUNTERS_H

#include "test.h"

#include "hakmem.h"

/* -1: this build counts nothing of that name, as FAST counts nothing at all. */
static inline long counted(const char *name) {
    static char text[32768];
    char key[64];
    CHECK(hakmem_stats_json(text, sizeof text) < sizeof text);
    snprintf(key, sizeof key, "\"%s\":", name);
    const char *at = strstr(text, key);
    return at ? strtol(at + strlen(key), NULL, 10) : -1;
}

static inline long counter(const char *name) {
    long n = counted(name);
    CHECK(n >= 0);
    return n;
}

#endif
