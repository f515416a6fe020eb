// expect: at once "invalid (free|realloc) \(not from hakmem\)"
// realloc of an array on the stack.
#include "misuse.h"

int main(void) {
    char here[64];
    void *p = realloc(here, 100);
    return survived();
}
