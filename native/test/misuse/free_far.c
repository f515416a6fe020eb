// expect: at once "invalid free \(.+\)"
// A gigabyte behind a block.
#include "misuse.h"

int main(void) {
    char *p = malloc(64);
    free(p + ((size_t)1 << 30));
    return survived();
}
