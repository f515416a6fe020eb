// expect: by flush "double free"
// Freed by a thread, then again after thousands of other frees.
#include "misuse.h"

static void *drop(void *p) {
    free(p);
    return NULL;
}

int main(void) {
    enum { OTHERS = 5000 };
    static void *others[OTHERS];
    void *p = malloc(128);
    for (int i = 0; i < OTHERS; i++) others[i] = malloc(128);
    run_thread(drop, p);
    for (int i = 0; i < OTHERS; i++) free(others[i]);
    free(p);
    return survived();
}
