#include "misuse.h"

#include "classes.h"
#include "diag.h"
#include "superslab.h"

#include <sched.h>

static bool is_free_bit(unit *s, unsigned i) { return peek(&unit_bits(s, hak_class[s->cls].count)[i / 64]) >> (i % 64) & 1; }

/* A block of the class begins there, and its slab has it. */
static bool is_free(const block *b, unsigned cls) {
    const class_info *c = &hak_class[cls];
    unsigned i = class_block_at(c, (uintptr_t)b & UNIT_MASK);
    return i < c->count && is_free_bit(unit_record(unit_of(b)), i);
}

static bool in_slab(const void *p) {
    return in_arena(p) && unit_of(p) < units_known() && unit_record(unit_of(p))->state == UNIT_SLAB;
}

UNSEEN bool misuse_on_list(const block *b, uintptr_t key) {
    while (peek(&b->mac) == misuse_mark_of(peek(&b->next), key)) sched_yield();
    return block_links(b, key);
}

_Noreturn COLD void misuse_bad_link(const block *b, unsigned cls) {
    size_t size = hak_class[cls].size;
    if (b == LIST_END) hak_fatal("double free (which block is not known: a list ends before its count)", NULL, size);
    if (in_slab(b) && unit_record(unit_of(b))->cls == cls && is_free(b, cls))
        hak_fatal("double free", b, size); /* it went back from another list */
    misuse_bad_words(b, cls);
}

_Noreturn COLD void misuse_bad_words(const block *b, unsigned cls) {
    bool handed_out = b->mac == 0 && b->next; /* malloc clears the one and leaves the other */
    hak_fatal(handed_out || block_looks_free(b) ? "double free"
                                                : "corrupted free list: double free, or written to after it was freed",
              b, hak_class[cls].size);
}

_Noreturn COLD void misuse_bad_free(const void *p) {
    size_t u = unit_of(p);
    if (!in_arena(p) || u >= units_known()) hak_fatal("invalid free (not from hakmem)", p, 0);
    unit *r = unit_record(u);
    size_t off = (uintptr_t)p & UNIT_MASK;
    switch (r->state) {
    case UNIT_VIRGIN: hak_fatal("invalid free (never allocated)", p, 0);
    case UNIT_RUN:
    case UNIT_RUN_TAIL: hak_fatal("invalid free (interior pointer)", p, 0);
    case UNIT_SLAB: hak_fatal("double free", p, hak_class[r->cls].size);
    default: break;
    }
    if (r->run_units || ss_of_unit(u)->span) hak_fatal("double free", p, 0);
    size_t size = hak_class[r->cls].size;
    hak_fatal(size && off % size == 0 ? "double free" : "invalid free (mapping is gone)", p, size);
}

bool misuse_is_free(const block *b, unsigned cls) {
    const class_info *c = &hak_class[cls];
    if (class_block_at(c, (uintptr_t)b & UNIT_MASK) == c->count) return false;
    if (is_free(b, cls)) return true;
    return b->mac != block_stamp() && depot_holds(b, cls); /* what bears the stamp is in its slab or nowhere */
}

void misuse_check_live(const void *p, const char *what) {
    if (!in_slab(p)) misuse_bad_free(p);
    unit *s = unit_record(unit_of(p));
    const class_info *c = &hak_class[s->cls];
    size_t off = (uintptr_t)p & UNIT_MASK;
    unsigned i = class_block_at(c, off);
    if (i == c->count) hak_fatal("invalid free (interior pointer)", p, c->size);
    /* No live block stands on a page that was given back. */
    bool page_gone = unit_pages(off, off + 1) & (uint16_t)~peek(&s->resident);
    if (page_gone || i >= peek(&s->carved) || is_free_bit(s, i)) hak_fatal(what, p, c->size);
    if (HAK_CHECKS && block_looks_free(p) && misuse_is_free(p, s->cls)) hak_fatal(what, p, c->size);
}
