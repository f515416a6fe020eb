// expect: by flush "double free"
// 10,000 operations of another class in between.
#include "misuse.h"

int main(void) {
    void *p = malloc(64);
    free(p);
    for (int i = 0; i < 10000; i++) free(malloc(400));
    free(p);
    return survived();
}
