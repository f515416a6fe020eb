// expect: at once "(double free|invalid free \(.+\))"
// A page run that has been merged with its neighbours.
#include "misuse.h"

int main(void) {
    void *a = malloc(300000), *b = malloc(300000), *c = malloc(300000);
    free(b);
    free(a);
    free(c);
    free(b);
    return survived();
}
