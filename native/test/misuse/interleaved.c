// expect: by flush "double free"
// One of two freed blocks is handed out again, the other one freed twice.
#include "misuse.h"

int main(void) {
    void *a = malloc(32), *b = malloc(32), *c;
    free(a);
    free(b);
    c = malloc(32);
    free(c == a ? b : a);
    return survived();
}
