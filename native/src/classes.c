#include "classes.h"

#define OCTAVE(size)                                                                                                          \
    ((size) <= 16 ? 0 : (size) <= 32 ? 1 : (size) <= 64 ? 2 : (size) <= 128 ? 3 : (size) <= 256 ? 4 : (size) <= 512 ? 5       \
     : (size) <= 1024 ? 6 : (size) <= 2048 ? 7 : 8)

const class_info hak_class[CLASSES + 1] = {
#define X(c, before, size) [c] = {size, 65536 / (size), (uint32_t)((0x100000000ull + (size) - 1) / (size)), OCTAVE(size)},
    HAK_CLASS_TABLE(X)
#undef X
};

const uint8_t hak_size_class[SMALL_MAX / 16 + 1] = {[0] = 1,
#define X(c, before, size) [(before) / 16 + 1 ...(size) / 16] = c,
                                                    HAK_CLASS_TABLE(X)
#undef X
};
