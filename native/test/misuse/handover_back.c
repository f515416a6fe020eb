// expect: by flush "double free"
// A thread frees what it was given, then the giver frees it too.
#include "misuse.h"

static void *drop(void *p) {
    free(p);
    return NULL;
}

int main(void) {
    void *p = malloc(64);
    run_thread(drop, p);
    free(p);
    return survived();
}
