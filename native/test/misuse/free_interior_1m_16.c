// expect: at once "invalid free \(interior pointer\)"
// 16 bytes behind the start of 1048576.
#include "misuse.h"

int main(void) {
    char *p = malloc(1048576);
    free(p + 16);
    return survived();
}
