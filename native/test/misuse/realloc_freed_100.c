// expect: at once "(double free|realloc of a freed block|invalid free \(.+\)|invalid realloc)"
// realloc of a freed block.
#include "misuse.h"

int main(void) {
    void *p = malloc(100);
    free(p);
    p = realloc(p, 200);
    return survived();
}
