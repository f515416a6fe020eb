// expect: at once "(double free|invalid free \(.+\))"
// The same with a page run.
#include "misuse.h"

static void *drop(void *p) {
    free(p);
    return NULL;
}

int main(void) {
    void *p = malloc(500000);
    run_thread(drop, p);
    free(p);
    return survived();
}
