// expect: by flush "invalid (free|realloc) \(interior pointer\)"
// realloc of a pointer into a block.
#include "misuse.h"

int main(void) {
    char *p = malloc(200), *q = realloc(p + 64, 4000);
    return survived();
}
