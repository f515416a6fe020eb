// expect: at once "invalid free \(interior pointer\)"
// 2097152 bytes behind the start of 67108864.
#include "misuse.h"

int main(void) {
    char *p = malloc(67108864);
    free(p + 2097152);
    return survived();
}
