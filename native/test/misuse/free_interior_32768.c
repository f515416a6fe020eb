// expect: by flush "invalid free \(interior pointer\)"
// 16 bytes behind the start of 32768.
#include "misuse.h"

int main(void) {
    char *p = malloc(32768);
    free(p + 16);
    return survived();
}
