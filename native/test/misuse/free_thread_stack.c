// expect: at once "invalid free \(not from hakmem\)"
// An array on the stack of a thread.
#include "misuse.h"

static void *drop_local(void *unused) {
    char here[64];
    free(here);
    return NULL;
}

int main(void) {
    run_thread(drop_local, NULL);
    return survived();
}
