// expect: at once "invalid free \(not from hakmem\)"
// A static array.
#include "misuse.h"

int main(void) {
    static char here[64];
    free(here);
    return survived();
}
