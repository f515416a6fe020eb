// expect: by flush "double free"
// The last destructor of a thread frees a block that another thread has freed and still keeps.
#include "misuse.h"

static pthread_key_t key;

static void destroy(void *p) { free(p); }

static void *work(void *p) {
    free(malloc(1000));
    pthread_setspecific(key, p);
    return NULL;
}

int main(void) {
    void *more[4], *p = malloc(400);
    pthread_key_create(&key, destroy); /* hakmem's own key is older, and its destructor runs first */
    for (int i = 0; i < 4; i++) more[i] = malloc(400);
    free(more[0]);
    free(p);
    for (int i = 1; i < 4; i++) free(more[i]);
    run_thread(work, p);
    return survived();
}
