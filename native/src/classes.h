/* classes: which sizes of block there are. A leaf.
 *
 *   class   1..CLASSES: 16-byte steps to 256, eight an octave to 4 KiB, then 64 KiB / k up to 32 KiB. 0 is no class.
 *   octave  C0..C7, the names that gates, dumps and charts use: C0 holds 16 B, Ck up to 16 << k; 8 (M) is above 2 KiB.
 *   The size of every class is a multiple of 16, and 64 KiB / size blocks make a slab.
 */
#ifndef HAK_CLASSES_H
#define HAK_CLASSES_H

#include "base.h"

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

/* The block that an offset in a slab of the class lies in. */
static inline unsigned class_block_of(const class_info *c, size_t off) { return (unsigned)((off * (uint64_t)c->reciprocal) >> 32); }

/* The block that begins at an offset in a slab of the class; its `count`: none does. */
static inline unsigned class_block_at(const class_info *c, size_t off) {
    unsigned i = class_block_of(c, off);
    return off == (size_t)i * c->size && i < c->count ? i : c->count;
}

#endif
