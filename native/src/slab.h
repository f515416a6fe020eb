/* slab: size classes; 64 KiB slabs of equal blocks; what is free in them; what moves between them and thread caches.
 *
 *   class   1..CLASSES: 16-byte steps to 256, eight an octave to 4 KiB, then 64 KiB / k up to 32 KiB. 0 is no class.
 *   octave  C0..C7, the names that gates, dumps and charts use: C0 holds 16 B, Ck up to 16 << k; 8 (M) is above 2 KiB.
 *   block   while free in a thread cache: { next, mac }, mac = secret ^ next, so a second free and a damaged list show. What a
 *           program copies about can look the same: a look-alike is a second free only if slab_is_free() agrees.
 *   chain   blocks linked by `next`, ended by LIST_END.
 *   depot   per class, up to DEPOT_CHAINS full chains that threads hand each other in O(1).
 *
 * Invariants, under the lock of the class (u: a unit in state UNIT_SLAB):
 *   blocks in the slab = nfree + (count - carved); all others are live or in some thread cache
 *   listed  <=> owner == NULL and some block is in the slab;  bit i set => i < carved
 *   hak_unit_class[u] = class, or 0 while pages of carved blocks are given back (then every free of it is checked slowly)
 */
#ifndef HAK_SLAB_H
#define HAK_SLAB_H

#include "base.h"
#include "superslab.h"

#define SMALL_MAX HAK_SMALL_MAX

/* X(class, size of the class before, size) */
#define HAK_CLASS_TABLE(X)                                                                                                \
    X(1, 0, 16) X(2, 16, 32) X(3, 32, 48) X(4, 48, 64) X(5, 64, 80) X(6, 80, 96) X(7, 96, 112) X(8, 112, 128)             \
    X(9, 128, 144) X(10, 144, 160) X(11, 160, 176) X(12, 176, 192) X(13, 192, 208) X(14, 208, 224) X(15, 224, 240)        \
    X(16, 240, 256) X(17, 256, 288) X(18, 288, 320) X(19, 320, 352) X(20, 352, 384) X(21, 384, 416) X(22, 416, 448)       \
    X(23, 448, 480) X(24, 480, 512) X(25, 512, 576) X(26, 576, 640) X(27, 640, 704) X(28, 704, 768) X(29, 768, 832)       \
    X(30, 832, 896) X(31, 896, 960) X(32, 960, 1024) X(33, 1024, 1152) X(34, 1152, 1280) X(35, 1280, 1408)                \
    X(36, 1408, 1536) X(37, 1536, 1664) X(38, 1664, 1792) X(39, 1792, 1920) X(40, 1920, 2048) X(41, 2048, 2304)           \
    X(42, 2304, 2560) X(43, 2560, 2816) X(44, 2816, 3072) X(45, 3072, 3328) X(46, 3328, 3584) X(47, 3584, 3840)           \
    X(48, 3840, 4096) X(49, 4096, 4672) X(50, 4672, 5040) X(51, 5040, 5456) X(52, 5456, 5952) X(53, 5952, 6544)           \
    X(54, 6544, 7280) X(55, 7280, 8192) X(56, 8192, 9360) X(57, 9360, 10912) X(58, 10912, 13104) X(59, 13104, 16384)      \
    X(60, 16384, 21840) X(61, 21840, 32768)
#define CLASSES HAK_CLASSES

typedef struct {
    uint32_t size, count;  /* bytes of a block; blocks in a slab */
    uint32_t reciprocal;   /* ceil(2^32 / size): offset * reciprocal >> 32 = block, exact for offsets below 64 KiB */
    uint8_t octave;
} class_info;

extern HIDDEN const class_info hak_class[CLASSES + 1];

typedef hak_block block;

typedef struct {
    block *head;
    unsigned count;
} chain;

#if HAK_CHECKS
extern HIDDEN block hak_sentinel; /* ends every list; never looks free */
#define LIST_END (&hak_sentinel)
#else
#define LIST_END NULL
#endif

/* What a thread holds of this room; zeroed at first. */
#define WARM_MAX 8
typedef struct slab_heap {
    unit *current[CLASSES + 1];
    size_t warm[WARM_MAX]; /* empty units at hand */
    unsigned warm_count;
} slab_heap;

/* A route: everything an allocation's slow way needs to know, decided once (ALLOC_PASSDOWN_SSOT) or by each layer. */
typedef struct {
    unsigned cls, batch;
    bool lean;
} slab_route;
slab_route slab_decide(unsigned cls);

void slab_init(void);
unsigned slab_cap(unsigned cls, policy_pressure pressure); /* blocks a hot list of this class may hold */

/* Fetch up to a batch of blocks; count 0: out of memory. `decided` NULL: each layer decides for itself. */
chain slab_refill(slab_heap *h, unsigned cls, const slab_route *decided);
/* Give a chain back to its slabs; ends the program on a block that is free already, or none. Checks every block. */
void slab_flush(slab_heap *h, unsigned cls, chain c);
bool slab_depot_put(unsigned cls, chain c); /* checks every block, like slab_flush; false: full */
bool slab_depot_get(unsigned cls, chain *c);
void slab_depot_drain(void);
void slab_abandon(slab_heap *h); /* thread exit: current and warm slabs are everybody's */

/* The slow look at one pointer: its block's index if it is a block that is not in its slab, else the program ends with `what`. */
void slab_check_live(const void *p, const char *what);
/* Of a block that looks free: whether it is, as far as its slab, its link and the depot tell. Lists of threads are not searched. */
bool slab_is_free(const block *b, unsigned cls);
/* A pointer into hakmem's arena that is not a live block: says what it is and ends the program. */
_Noreturn void slab_bad_free(const void *p);

/* Lean: give back free pages until `goal` bytes have gone or nothing is left. */
void slab_purge(size_t goal);
void slab_purge_if_over(void);
/* Everything that can go, now: depots, free pages, empty SuperSlabs. Bytes given back. */
size_t slab_trim(void);

void slab_lock_all(void), slab_unlock_all(void);
size_t slab_live_bytes(void); /* in blocks that are not in their slab */
bool slab_check(void); /* walks every slab and holds it against the invariants above */

#endif
