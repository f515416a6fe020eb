// expect: at once "double free"
// The child frees what the parent has freed.
#include "misuse.h"

int main(void) {
    void *p = malloc(80);
    int status;
    free(p);
    if (fork() == 0) {
        free(p);
        _exit(0);
    }
    if (wait(&status) < 0) return 3;
    if (WIFSIGNALED(status)) abort(); /* the child's line is on stderr */
    return survived();
}
