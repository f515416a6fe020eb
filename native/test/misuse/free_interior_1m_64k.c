// expect: at once "invalid free \(interior pointer\)"
// 65536 bytes behind the start of 1048576.
#include "misuse.h"

int main(void) {
    char *p = malloc(1048576);
    free(p + 65536);
    return survived();
}
