// expect: at once "double free"
// An exit handler frees what main has freed.
#include "misuse.h"

static void *freed_early;

static void clean_up(void) { free(freed_early); }

int main(void) {
    freed_early = malloc(80);
    atexit(clean_up);
    free(freed_early);
    return 0;
}
