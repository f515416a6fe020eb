// expect: by flush "double free"
// A block of 8 KiB, 50 others freed in between.
#include "misuse.h"

int main(void) {
    void *others[50], *p = malloc(8192);
    for (int i = 0; i < 50; i++) others[i] = malloc(8192);
    free(p);
    for (int i = 0; i < 50; i++) free(others[i]);
    free(p);
    return survived();
}
