// expect: by flush "invalid free \(interior pointer\)"
// 16 bytes behind the start of 2048.
#include "misuse.h"

int main(void) {
    char *p = malloc(2048);
    free(p + 16);
    return survived();
}
