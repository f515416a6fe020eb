// expect: at once "invalid free \(not from hakmem\)"
// A thread-local array.
#include "misuse.h"

int main(void) {
    static __thread char here[64];
    free(here);
    return survived();
}
