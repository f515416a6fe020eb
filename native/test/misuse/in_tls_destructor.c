// expect: at once "double free"
// A destructor of thread-specific data frees what the thread has freed.
#include "misuse.h"

static pthread_key_t key;

static void destroy(void *p) { free(p); }

static void *work(void *unused) {
    void *p = malloc(80);
    pthread_setspecific(key, p);
    free(p);
    return NULL;
}

int main(void) {
    pthread_key_create(&key, destroy);
    run_thread(work, NULL);
    return survived();
}
