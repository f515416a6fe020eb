/* hakmem: a malloc replacement with a memory-lean mode that environment variables switch (docs/gates.md).
 *
 * Link with libhakmem.a or preload libhakmem.so: malloc, calloc, realloc, free and their relatives are then hakmem's. What follows
 * is what hakmem adds. All functions may be called from any thread at any time.
 *
 *   hakmem_stats   a snapshot: bytes unless said otherwise
 */
#ifndef HAKMEM_H
#define HAKMEM_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    size_t resident;      /* of the arena: pages that hold, or held and may still hold, data */
    size_t live;          /* in blocks the program holds or a thread cache keeps, rounded up to their classes */
    size_t metadata;      /* of the allocator itself */
    size_t superslabs;    /* SuperSlabs in use or cached, a count */
    size_t target;        /* HAKMEM_SS_MEM_LEAN_TARGET_MB in bytes; 0 outside Lean */
    uint64_t system_calls; /* mmap, munmap, mprotect, madvise and mremap so far; 0 in the FAST build */
} hakmem_stats;

const char *hakmem_version(void);
void hakmem_stats_get(hakmem_stats *out);

/* Write {"name":"hakmem","version":..,"build":..,"gates":{..},"counters":{..}}, at most `size` bytes with the final 0.
 * Returns the length of the whole text, like snprintf. The FAST build counts nothing: "counters":{}. */
size_t hakmem_stats_json(char *buf, size_t size);

/* The counters alone, at most `size`, in the order of that text; returns how many there are, 0 in the FAST build. Touches next to no memory,
 * where writing the text makes some 150 KB of the C library resident. */
size_t hakmem_counters(uint64_t *counts, size_t size);

/* Where memory is, in bytes: {"classes":[{"size":..,"slabs":..,"blocks_live":..,"bytes_live":..,"bytes_resident":..,"bytes_cached":..},..],
 * "metadata":{..},"warm_pool":{..},"large":{..},"direct":{..},"superslabs":{..},"map":[..]} (docs/design.md). Returns the length, like snprintf;
 * walks every slab, so not for a timed region. 0 in the FAST build. */
size_t hakmem_residency_json(char *buf, size_t size);

/* Give back every page that can go, whatever the gates say of when (but not of how); returns the bytes given back. */
size_t hakmem_purge(void);

/* Walk the heap and hold it against its invariants; 1: sound. Prints what is wrong. */
int hakmem_check(void);

#ifdef HAK_PREFIXED /* builds for sanitizers, which bring a malloc of their own */
struct mallinfo2;
void *hak_malloc(size_t size);
void *hak_calloc(size_t count, size_t size);
void *hak_realloc(void *p, size_t size);
void *hak_reallocarray(void *p, size_t count, size_t size);
void hak_free(void *p);
void hak_free_sized(void *p, size_t size);
void hak_free_aligned_sized(void *p, size_t align, size_t size);
void *hak_aligned_alloc(size_t align, size_t size);
int hak_posix_memalign(void **out, size_t align, size_t size);
void *hak_memalign(size_t align, size_t size);
void *hak_valloc(size_t size);
void *hak_pvalloc(size_t size);
size_t hak_malloc_usable_size(void *p);
int hak_malloc_trim(size_t pad);
struct mallinfo2 hak_mallinfo2(void);
int hak_malloc_info(int options, FILE *to);
int hak_mallopt(int what, int value);
#endif

#ifdef __cplusplus
}
#endif
#endif
