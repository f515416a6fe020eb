// expect: by flush "(double free|corrupted free list: double free, or written to after it was freed)"
// A block whose page has gone back is freed again and handed out, and its slab, which has it as well, is asked for it. With Lean also if its new owner
// has cleared it, so that it looks like what the kernel gives; without Lean that might be the kernel's own doing.
#include "misuse.h"

enum { BLOCKS = 200, SIZE = 600 };

int main(void) {
    static void *blocks[BLOCKS];
    const char *lean = getenv("HAKMEM_SS_MEM_LEAN");
    for (int i = 0; i < BLOCKS; i++) blocks[i] = malloc(SIZE);
    for (int i = 0; i < BLOCKS; i++)
        if (i % 64) free(blocks[i]);
    malloc_trim(0);
    free(blocks[77]);
    blocks[77] = lean && *lean == '1' ? calloc(1, SIZE) : malloc(SIZE);
    for (int i = 0; i < BLOCKS; i++) blocks[i] = malloc(SIZE);
    return survived();
}
