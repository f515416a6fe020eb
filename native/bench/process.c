#include "process.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

size_t bench_read_file(const char *path, char *buffer, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    size_t have = 0;
    ssize_t got;
    while (have + 1 < size && (got = read(fd, buffer + have, size - 1 - have)) > 0) have += (size_t)got;
    close(fd);
    buffer[have] = 0;
    return have;
}

int64_t bench_kilobytes(const char *text, const char *key) {
    const char *at = strstr(text, key);
    return at ? strtoll(at + strlen(key), NULL, 10) : -1;
}

/* smaps_rollup is exact where the counters behind VmHWM may lag by some pages a CPU, so the peak is the larger of both. It
 * never falls from one reading to the next. */
bench_memory bench_read_memory(void) {
    static char text[4096];
    static int64_t seen_kb = -1;
    bench_memory memory = {-1, -1, -1, -1};
    if (bench_read_file("/proc/self/smaps_rollup", text, sizeof text)) {
        memory.rss_kb = bench_kilobytes(text, "\nRss:");
        memory.anon_kb = bench_kilobytes(text, "\nAnonymous:");
        memory.lazyfree_kb = bench_kilobytes(text, "\nLazyFree:");
    }
    if (bench_read_file("/proc/self/status", text, sizeof text)) memory.peak_rss_kb = bench_kilobytes(text, "\nVmHWM:");
    if (memory.peak_rss_kb < memory.rss_kb) memory.peak_rss_kb = memory.rss_kb;
    if (memory.peak_rss_kb < seen_kb) memory.peak_rss_kb = seen_kb;
    seen_kb = memory.peak_rss_kb;
    return memory;
}
