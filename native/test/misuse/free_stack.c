// expect: at once "invalid free \(not from hakmem\)"
// An array on the stack.
#include "misuse.h"

int main(void) {
    char here[64];
    free(here);
    return survived();
}
