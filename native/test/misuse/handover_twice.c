// expect: by flush "double free"
// Two threads free the same block, one after the other.
#include "misuse.h"

static void *drop(void *p) {
    free(p);
    return NULL;
}

int main(void) {
    void *p = malloc(64);
    run_thread(drop, p);
    run_thread(drop, p);
    return survived();
}
