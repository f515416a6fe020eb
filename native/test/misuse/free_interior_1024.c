// expect: by flush "invalid free \(interior pointer\)"
// 512 bytes behind the start of 1024.
#include "misuse.h"

int main(void) {
    char *p = malloc(1024);
    free(p + 512);
    return survived();
}
