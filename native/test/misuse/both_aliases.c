// expect: by flush "double free"
// Written behind the link words, then freed again through another name.
#include "misuse.h"

int main(void) {
    char *p = malloc(200), *alias = p;
    memset(p, 1, 200);
    free(p);
    alias[100] = 2;
    free(alias);
    return survived();
}
