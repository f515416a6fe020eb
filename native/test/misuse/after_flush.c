// expect: at once "(double free|invalid free \(.+\))"
// The whole slab is empty and given back.
#include "misuse.h"

int main(void) {
    enum { OTHERS = 5000 };
    static void *others[OTHERS];
    for (int i = 0; i < OTHERS; i++) others[i] = malloc(3000);
    for (int i = 0; i < OTHERS; i++) free(others[i]);
    malloc_trim(0);
    free(others[7]);
    return survived();
}
