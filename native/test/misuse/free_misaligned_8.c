// expect: at once "invalid free \(interior pointer\)"
// Eight bytes behind the start, as after a length word.
#include "misuse.h"

int main(void) {
    char *p = malloc(64);
    free(p + 8);
    return survived();
}
