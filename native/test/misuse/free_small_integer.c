// expect: at once "invalid free \(not from hakmem\)"
// An integer taken for a pointer.
#include "misuse.h"

int main(void) {
    free((void *)0x10);
    return survived();
}
