// expect: at once "invalid free \(not from hakmem\)"
// A string of the initial environment.
#include "misuse.h"

int main(void) {
    setenv("PATH", "/bin", 0);
    free(environ[0] ? environ[0] : NULL);
    return survived();
}
