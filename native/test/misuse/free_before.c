// expect: by flush "invalid free \(.+\)"
// 16 bytes before the start, as before a header.
#include "misuse.h"

int main(void) {
    char *p = malloc(64);
    p = malloc(64);
    free(p - 16);
    return survived();
}
