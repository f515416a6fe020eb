// expect: by flush "double free"
// 100 other blocks of the class are freed in between.
#include "misuse.h"

int main(void) {
    enum { OTHERS = 100 };
    static void *others[OTHERS];
    void *p = malloc(48);
    for (int i = 0; i < OTHERS; i++) others[i] = malloc(48);
    free(p);
    for (int i = 0; i < OTHERS; i++) free(others[i]);
    free(p);
    return survived();
}
