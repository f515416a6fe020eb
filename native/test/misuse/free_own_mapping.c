// expect: at once "invalid free \(not from hakmem\)"
// A mapping of the program's own.
#include "misuse.h"

int main(void) {
    free(mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    return survived();
}
