// expect: at once "invalid free \(not from hakmem\)"
// What mmap returns when it fails.
#include "misuse.h"

int main(void) {
    free((void *)-1);
    return survived();
}
