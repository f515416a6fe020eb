/* What a kernel that never overcommits (vm.overcommit_memory = 2) charges: private pages that may be written. It ignores
 * MAP_NORESERVE, and nobody may set it for one process, so what it would charge is added up from the kernel's own list of mappings. */
#include "test.h"

#define MIB ((size_t)1 << 20)

typedef struct {
    size_t charged, reserved, reserved_but_charged;
} charges;

/* Of anonymous memory; the program's break and stack are not the allocator's. */
static charges add_up(void) {
    char line[512], rights[5] = "";
    charges sum = {0};
    size_t from, to, inode, size = 0; /* size: of the mapping the lines are about; 0: not ours */
    FILE *maps = fopen("/proc/self/smaps", "r");
    CHECK(maps);
    while (fgets(line, sizeof line, maps)) {
        int name = 0;
        if (sscanf(line, "%zx-%zx %4s %*s %*s %zu %n", &from, &to, rights, &inode, &name) == 4)
            size = inode == 0 && line[name] != '[' ? to - from : 0;
        else if (strncmp(line, "VmFlags:", 8) == 0 && strcmp(rights, "rw-p") == 0) sum.charged += size;
        else if (strncmp(line, "VmFlags:", 8) == 0 && strcmp(rights, "---p") == 0) {
            sum.reserved += size;
            sum.reserved_but_charged += strstr(line, " ac") ? size : 0;
        }
    }
    fclose(maps);
    return sum;
}

static void addresses_are_not_charged(void) {
    CHECK(malloc(1));
    charges now = add_up();
    printf("# at the start: %zu KiB charged, %zu MiB reserved\n", now.charged >> 10, now.reserved >> 20);
    CHECK(now.reserved > now.charged && now.reserved_but_charged == 0);
    CHECK(now.charged < (getenv("HAKMEM_SS_MEM_LEAN") ? 4 : 18) * MIB); /* SuperSlabs made ready: 1, else 8; records of 64 MiB */
}

/* Whole SuperSlabs, and records for 64 MiB of arena at a time. */
static void what_is_used_is_charged(void) {
    enum { COUNT = 1000 };
    static const size_t sizes[] = {1000, 60000, 3 * MIB / 2};
    static char *blocks[COUNT];
    for (unsigned k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        size_t before = add_up().charged, after, count = sizes[k] > MIB ? 50 : COUNT;
        for (size_t i = 0; i < count; i++) CHECK((blocks[i] = malloc(sizes[k])));
        after = add_up().charged;
        CHECK(after - before <= count * sizes[k] * 4 / 3 + 4 * MIB || after <= before);
        for (size_t i = 0; i < count; i++) free(blocks[i]);
    }
}

/* Giving pages back does not end a charge, giving back the mapping does. */
static void large_blocks_are_charged_while_they_live(void) {
    char *p = malloc(200 * MIB);
    CHECK(p);
    size_t during = add_up().charged;
    free(p);
    CHECK(add_up().charged + 200 * MIB <= during);
}

int main(void) {
    RUN(addresses_are_not_charged);
    RUN(what_is_used_is_charged);
    RUN(large_blocks_are_charged_while_they_live);
    return 0;
}
