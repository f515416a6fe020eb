// expect: by flush "invalid free \(interior pointer\)"
// 4096 bytes behind the start of 8192.
#include "misuse.h"

int main(void) {
    char *p = malloc(8192);
    free(p + 4096);
    return survived();
}
