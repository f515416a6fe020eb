// expect: at once "(double free|realloc of a freed block|invalid free \(.+\)|invalid realloc)"
// realloc of a freed block.
#include "misuse.h"

int main(void) {
    void *p = malloc(8192);
    free(p);
    p = realloc(p, 16384);
    return survived();
}
