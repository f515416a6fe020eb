// expect: by flush "double free( \(which block is not known: a list ends before its count\))?"
// 10000 other blocks of the class are freed in between.
#include "misuse.h"

int main(void) {
    enum { OTHERS = 10000 };
    static void *others[OTHERS];
    void *p = malloc(48);
    for (int i = 0; i < OTHERS; i++) others[i] = malloc(48);
    free(p);
    for (int i = 0; i < OTHERS; i++) free(others[i]);
    free(p);
    return survived();
}
