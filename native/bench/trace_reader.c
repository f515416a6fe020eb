/* Reads traces for replay.c: the whole file is checked before anything runs, through a window of 32 KiB. */
#include "trace_reader.h"

#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

trace_header header;
char mark_names[TRACE_MAX_MARKS][TRACE_MARK_BYTES];
_Atomic uint64_t *slots;
uint64_t all_ops, timed_ops;

static const char *path;
static int file = -1;
static trace_event window[2048];

static uint32_t crc_table[8][256];

static void make_crc_table(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0xEDB88320) : 0);
        crc_table[0][i] = crc;
    }
    for (int slice = 1; slice < 8; slice++)
        for (int i = 0; i < 256; i++) {
            uint32_t before = crc_table[slice - 1][i];
            crc_table[slice][i] = before >> 8 ^ crc_table[0][before & 0xFF];
        }
}

/* CRC-32 as zlib has it, eight bytes a step; size is a multiple of 8 in all we read. */
static uint32_t crc32_of(uint32_t crc, const void *data, size_t size) {
    const uint8_t *at = data;
    crc = ~crc;
    for (; size >= 8; size -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        word ^= crc;
        crc = 0;
        for (int slice = 0; slice < 8; slice++) crc ^= crc_table[7 - slice][word >> 8 * slice & 0xFF];
    }
    return ~crc;
}

size_t trace_read(void *buffer, size_t size) {
    size_t have = 0;
    while (have < size) {
        ssize_t got = read(file, (char *)buffer + have, size - have);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) bench_die("cannot read %s: %s", path, strerror(errno));
        if (got == 0) break;
        have += (size_t)got;
    }
    return have;
}

void trace_rewind(void) {
    if (lseek(file, header.header_bytes, SEEK_SET) < 0) bench_die("cannot seek in %s: %s", path, strerror(errno));
}

void *trace_reserve(size_t size) {
    void *p = mmap(NULL, size ? size : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) bench_die("cannot map %zu bytes for the slots: %s", size, strerror(errno));
    return p;
}

/* 1..31 printable characters that need no escape in JSON, then zeros. */
static bool is_mark_name(const char *name) {
    size_t length = strnlen(name, TRACE_MARK_BYTES);
    for (size_t i = 0; i < length; i++)
        if (name[i] < ' ' || name[i] > '~' || name[i] == '"' || name[i] == '\\') return false;
    for (size_t i = length; i < TRACE_MARK_BYTES; i++)
        if (name[i]) return false;
    return length > 0 && length < TRACE_MARK_BYTES;
}

static void check_header(uint64_t size) {
    size_t got = trace_read(&header, sizeof header);
    size_t magic = got < 8 ? got : 8;
    if (got >= 4 && memcmp(&header, "\x28\xb5\x2f\xfd", 4) == 0)
        bench_refuse("%s is compressed: unpack it with  hakmem trace convert %s PLAIN.trace", path, path);
    if (magic == 0 || memcmp(header.magic, TRACE_MAGIC, magic) != 0) bench_refuse("%s is no trace: it lacks the magic word", path);
    if (got < sizeof header) bench_refuse("%s is truncated: it ends inside the header, after %zu bytes", path, got);
    if (header.byte_order != TRACE_BYTE_ORDER) bench_refuse("%s is of foreign byte order: a trace is little-endian", path);
    if (header.version != TRACE_VERSION)
        bench_refuse("%s is of a %s format, version %" PRIu32 "; this replay reads version %d", path,
                     header.version > TRACE_VERSION ? "newer" : "unknown", header.version, TRACE_VERSION);
    uint64_t told = sizeof header + (uint64_t)header.marks * TRACE_MARK_BYTES + header.text_bytes;
    if (header.event_bytes != sizeof(trace_event) || header.header_bytes % 4096 || told > header.header_bytes ||
        header.text_bytes > TRACE_MAX_TEXT || header.header_bytes > TRACE_MAX_TEXT + 4 * 4096 || header.marks > TRACE_MAX_MARKS ||
        header.warm > header.events || header.events > UINT64_C(1) << 40 || header.slots > TRACE_MAX_SLOTS || header.threads < 1 ||
        header.threads > TRACE_MAX_THREADS)
        bench_refuse("%s is damaged: its header contradicts itself", path);
    uint32_t told_crc = header.header_crc;
    header.header_crc = 0;
    uint32_t crc = crc32_of(0, &header, sizeof header);
    if (trace_read(mark_names, header.marks * TRACE_MARK_BYTES) < header.marks * TRACE_MARK_BYTES)
        bench_refuse("%s is truncated: it ends inside the header, after %" PRIu64 " bytes", path, size);
    crc = crc32_of(crc, mark_names, header.marks * TRACE_MARK_BYTES);
    for (size_t left = header.header_bytes - sizeof header - header.marks * TRACE_MARK_BYTES; left > 0;) {
        size_t part = left < sizeof window ? left : sizeof window;
        if (trace_read(window, part) < part)
            bench_refuse("%s is truncated: it ends inside the header, after %" PRIu64 " bytes", path, size);
        crc = crc32_of(crc, window, part);
        left -= part;
    }
    if (crc != told_crc) bench_refuse("%s is damaged: its header does not match its checksum", path);
    for (uint32_t i = 0; i < header.marks; i++)
        if (!is_mark_name(mark_names[i])) bench_refuse("%s is damaged: a mark has no proper name", path);
    uint64_t there = (size - header.header_bytes) / sizeof(trace_event);
    if (there < header.events)
        bench_refuse("%s is truncated: it ends after %" PRIu64 " of %" PRIu64 " events", path, there, header.events);
    if (size != header.header_bytes + header.events * sizeof(trace_event))
        bench_refuse("%s is damaged: something follows the last event", path);
}

/* Returns what is wrong with an event, NULL if nothing is; slots hold 1 where a block lives. */
static const char *wrong(trace_event event, uint32_t *marks) {
    if (event.op < TRACE_MALLOC || event.op > TRACE_MARK) return "has an unknown operation";
    if (event.op <= TRACE_FREE && event.slot >= header.slots) return "names a slot that the header does not promise";
    if (event.thread >= header.threads) return "names a thread that the header does not promise";
    if (event.size > TRACE_MAX_SIZE || (event.op >= TRACE_FREE && event.size)) return "has a size that does not belong there";
    if (event.align > TRACE_MAX_ALIGN || (event.align != 0) != (event.op == TRACE_ALIGNED))
        return "has an alignment that does not belong there";
    if (event.op == TRACE_MARK) return event.slot == *marks && *marks < header.marks ? (++*marks, NULL) : "is not the next mark";
    if (event.op == TRACE_EXIT) return NULL;
    bool lives = slots[event.slot], needs = event.op == TRACE_FREE || event.op == TRACE_REALLOC;
    if (lives && !needs) return "allocates into a slot that holds a block";
    if (!lives && needs) return "frees or resizes a block that does not live";
    atomic_store_explicit(&slots[event.slot], event.op != TRACE_FREE, memory_order_relaxed);
    return NULL;
}

static void check_events(void) {
    uint32_t crc = 0, marks = 0;
    size_t got;
    trace_rewind();
    for (uint64_t at = 0; at < header.events; at += got) {
        got = trace_read(window, sizeof window) / sizeof *window;
        if (got == 0) bench_refuse("%s is truncated: it ends after %" PRIu64 " of %" PRIu64 " events", path, at, header.events);
        crc = crc32_of(crc, window, got * sizeof *window);
        for (size_t i = 0; i < got; i++) {
            const char *why = wrong(window[i], &marks);
            if (why) bench_refuse("%s is damaged: event %" PRIu64 " %s", path, at + i, why);
            all_ops += window[i].op <= TRACE_FREE;
            timed_ops += at + i >= header.warm && window[i].op <= TRACE_FREE;
        }
    }
    if (crc != header.events_crc) bench_refuse("%s is damaged: its events do not match their checksum", path);
    for (uint32_t i = 0; i < header.slots; i++)
        if (slots[i]) slots[i] = 0;
}

void trace_open(const char *name) {
    path = name;
    struct stat about;
    if (!path) bench_refuse("which trace? --trace=FILE");
    file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &about) != 0) bench_refuse("cannot read the trace %s: %s", path, strerror(errno));
    if (!S_ISREG(about.st_mode)) bench_refuse("%s is no regular file", path);
    make_crc_table();
    check_header((uint64_t)about.st_size);
    slots = trace_reserve(header.slots * sizeof *slots);
    check_events();
    trace_rewind();
}
