// expect: by flush "double free"
// Two living threads hold the same block in their caches.
#include "misuse.h"

static int to_thread[2], from_thread[2];

static void *drop(void *p) {
    char byte = 0;
    free(p);
    if (write(from_thread[1], &byte, 1) != 1 || read(to_thread[0], &byte, 1) != 1) exit(3);
    return NULL;
}

int main(void) {
    void *p = malloc(64);
    pthread_t id;
    if (pipe(to_thread) != 0 || pipe(from_thread) != 0 || pthread_create(&id, NULL, drop, p) != 0) return 3;
    char byte;
    if (read(from_thread[0], &byte, 1) != 1) return 3;
    free(p); /* it still lies in the other thread's cache */
    if (write(to_thread[1], &byte, 1) != 1) return 3;
    pthread_join(id, NULL);
    return survived();
}
