// expect: at once "(double free|realloc of a freed block|invalid free \(.+\)|invalid realloc)"
// realloc of a freed block.
#include "misuse.h"

int main(void) {
    void *p = malloc(1048576);
    free(p);
    p = realloc(p, 2097152);
    return survived();
}
