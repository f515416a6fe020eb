// expect: by flush "invalid free \(interior pointer\)"
// The pointer was advanced before it was freed.
#include "misuse.h"

int main(void) {
    int *numbers = malloc(1000 * sizeof *numbers);
    numbers += 100;
    free(numbers);
    return survived();
}
