// expect: at once "invalid free \(not from hakmem\)"
// A string literal.
#include "misuse.h"

int main(void) {
    free((void *)"text");
    return survived();
}
