// expect: at once "invalid free \(not from hakmem\)"
// A pointer made of text.
#include "misuse.h"

int main(void) {
    free((void *)0x4141414141414141);
    return survived();
}
