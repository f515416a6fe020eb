// expect: at once "(double free|realloc of a freed block|invalid free \(.+\)|invalid realloc)"
// realloc of a block freed long ago.
#include "misuse.h"

int main(void) {
    void *others[100], *p = malloc(64);
    for (int i = 0; i < 100; i++) others[i] = malloc(64);
    free(p);
    for (int i = 0; i < 100; i++) free(others[i]);
    p = realloc(p, 500);
    return survived();
}
