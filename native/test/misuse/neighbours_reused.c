// expect: by flush "double free"
// The blocks around it were used again in between.
#include "misuse.h"

int main(void) {
    enum { NEIGHBOURS = 8 };
    void *p = NULL, *neighbours[NEIGHBOURS], *again[2];
    for (int i = 0; i < NEIGHBOURS; i++) {
        neighbours[i] = malloc(256);
        if (i == NEIGHBOURS / 2) p = malloc(256);
    }
    free(p);
    for (int i = 0; i < NEIGHBOURS; i++) free(neighbours[i]);
    for (int i = 0; i < 2; i++) again[i] = malloc(256);
    if (again[0] == p || again[1] == p) return 3; /* handed out again: nobody could tell */
    free(p);
    return survived();
}
