// expect: at once "(double free|realloc of a freed block|invalid free \(.+\)|invalid realloc)"
// realloc of a freed block that would not have to move.
#include "misuse.h"

int main(void) {
    void *p = malloc(100);
    free(p);
    p = realloc(p, 90);
    return survived();
}
