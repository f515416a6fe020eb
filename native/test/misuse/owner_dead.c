// expect: at once "double free"
// The thread that allocated it is gone.
#include "misuse.h"

static void *make(void *unused) { return malloc(300); }

int main(void) {
    void *p = run_thread(make, NULL);
    free(p);
    free(p);
    return survived();
}
