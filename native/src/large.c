#include "large.h"

#include "slab.h"
#include "span.h"
#include "stats.h"

static unit *record_of(const void *p) { return unit_record(unit_of(p)); }
static SuperSlab *span_of(const void *p) {
    SuperSlab *ss = ss_of_unit(unit_of(p));
    return ss->kind == SS_SPAN ? ss : NULL;
}

void *large_alloc(size_t size, size_t align, bool *zeroed) {
    if (size > PTRDIFF_MAX || align > PTRDIFF_MAX) return NULL;
    size_t units = div_up(size ? size : 1, UNIT_SIZE), first;
    if (ss_shares_superslabs(units) && (align <= UNIT_SIZE || (units <= ss_units / 2 && align < ss_bytes()))) {
        first = ss_units_alloc((unsigned)units, align > UNIT_SIZE ? (unsigned)(align >> UNIT_SHIFT) : 1, zeroed);
        if (first == SIZE_MAX) return NULL;
        for (size_t i = 0; i < units; i++) {
            unit *r = unit_record(first + i);
            r->state = i ? UNIT_RUN_TAIL : UNIT_RUN;
            r->run_units = i ? 0 : (uint32_t)units;
            unit_mark_resident(r, 0, i + 1 < units ? UNIT_SIZE : size - (units - 1) * UNIT_SIZE);
        }
        unit_record(first)->run_slack = (uint32_t)(units * UNIT_SIZE - size);
        for (size_t i = 0; i < units; i++) unit_tell(unit_record(first + i));
    } else {
        first = span_alloc(div_up(size ? size : 1, ss_bytes()), align, size, zeroed);
        if (first == SIZE_MAX) return NULL;
        unit_record(first)->state = UNIT_RUN;
        unit_tell(unit_record(first));
    }
    STAT(large_alloc);
    return unit_address(first);
}

bool large_owns(const void *p) {
    size_t u = unit_of(p);
    return in_arena(p) && u < units_known() && !((uintptr_t)p & UNIT_MASK) && peek(&unit_record(u)->state) == UNIT_RUN;
}

bool large_free(void *p) {
    if (!large_owns(p)) return false;
    unit *r = record_of(p);
    SuperSlab *span = span_of(p);
    /* Of two threads that free the same block only one sees it live. */
    if (__atomic_exchange_n(&r->state, (uint8_t)UNIT_FREE, __ATOMIC_ACQ_REL) != UNIT_RUN) return false;
    STAT(large_free);
    if (span) {
        span_free(span);
    } else {
        for (size_t i = 1; i < r->run_units; i++) r[i].state = UNIT_FREE;
        for (size_t i = 0; i < r->run_units; i++) unit_tell(&r[i]);
        size_t units = r->run_units; /* once it is free, others may use the record */
        ss_units_free(unit_of(p), (unsigned)units);
        if (lean_releases()) lean_freed(units * UNIT_SIZE);
    }
    if (lean_releases()) slab_purge_if_due(false);
    return true;
}

size_t large_usable(const void *p) {
    const SuperSlab *span = span_of(p);
    if (!span) return (size_t)record_of(p)->run_units * UNIT_SIZE;
    return round_up(span->bytes, (size_t)1 << hak_page_shift);
}

void *large_resize(void *p, size_t size) {
    if (size > PTRDIFF_MAX) return NULL;
    SuperSlab *span = span_of(p);
    size_t units = div_up(size, UNIT_SIZE);
    if (!span) {
        unit *r = record_of(p);
        if (units != r->run_units) return NULL;
        unit_mark_resident(r + units - 1, 0, size - (units - 1) * UNIT_SIZE);
        r->run_slack = (uint32_t)(units * UNIT_SIZE - size);
        unit_tell(r);
        return p;
    }
    if (units <= ss_units / 2) return NULL; /* small enough for a run: copying gives the SuperSlab back */
    SuperSlab *now = span_resize(span, div_up(size, ss_bytes()), size);
    if (!now) return NULL;
    unit_record(ss_first_unit(now))->state = UNIT_RUN;
    unit_tell(unit_record(ss_first_unit(now)));
    return unit_address(ss_first_unit(now));
}
