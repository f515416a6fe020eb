// expect: at once "invalid free \(not from hakmem\)"
// A function.
#include "misuse.h"

int main(void) {
    free((void *)(uintptr_t)survived);
    return survived();
}
