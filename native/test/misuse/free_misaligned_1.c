// expect: at once "invalid free \(interior pointer\)"
// One byte behind the start.
#include "misuse.h"

int main(void) {
    char *p = malloc(64);
    free(p + 1);
    return survived();
}
