// expect: by flush "double free"
// A thread returns a block that it has freed.
#include "misuse.h"

static void *make_and_drop(void *unused) {
    void *p = malloc(300);
    free(p);
    return p;
}

int main(void) {
    free(run_thread(make_and_drop, NULL));
    return survived();
}
