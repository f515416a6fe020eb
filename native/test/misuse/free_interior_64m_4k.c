// expect: at once "invalid free \(interior pointer\)"
// 4096 bytes behind the start of 67108864.
#include "misuse.h"

int main(void) {
    char *p = malloc(67108864);
    free(p + 4096);
    return survived();
}
