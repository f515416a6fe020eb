// expect: at once "invalid free \(.+\)"
// A terabyte before a block.
#include "misuse.h"

int main(void) {
    char *p = malloc(64);
    free(p - ((size_t)1 << 40));
    return survived();
}
