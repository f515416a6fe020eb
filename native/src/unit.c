#include "unit.h"

#include "lean.h"
#include "stats.h"

unit *unit_table;
uint8_t *hak_unit_class;
uint64_t *unit_extra;

static size_t known;
static size_t free_resident; /* bytes */

bool units_init(void) {
    size_t page = (size_t)1 << hak_page_shift, class_bytes = round_up(hak_arena_units, page);
    return (hak_unit_class || (hak_unit_class = os_metadata(class_bytes, "class map"))) &&
           (unit_table || (unit_table = os_metadata(round_up(hak_arena_units * sizeof(unit), page), "unit records"))) &&
           (unit_extra || (unit_extra = os_metadata(round_up(hak_arena_units * UNIT_EXTRA_WORDS * 8, page), "bitmaps"))) &&
           os_show(hak_unit_class, class_bytes);
}

size_t units_known(void) { return __atomic_load_n(&known, __ATOMIC_ACQUIRE); }

bool units_know(size_t end) {
    if (!os_commit_entries(unit_table, sizeof(unit), known, end) || !os_commit_entries(hak_unit_class, 1, known, end) ||
        !os_commit_entries(unit_extra, UNIT_EXTRA_WORDS * sizeof(uint64_t), known, end))
        return false;
    __atomic_store_n(&known, end, __ATOMIC_RELEASE);
    if (hak_live) live_show(end);
    return true;
}

/* ---- residency ---- */

static size_t bytes_of(uint16_t pages) { return (size_t)count_ones(pages) << hak_page_shift; }

void unit_set_resident(unit *r, uint16_t pages, bool in_use) {
    uint16_t was = r->resident;
    if (was == pages) return;
    size_t grown = bytes_of(pages & (uint16_t)~was), shrunk = bytes_of(was & (uint16_t)~pages);
    lean_add_resident(grown - shrunk);
    if (!in_use) free_resident += grown - shrunk;
    poke(&r->resident, pages);
    unit_tell(r);
}

void unit_mark_resident(unit *r, size_t from, size_t to) { unit_set_resident(r, r->resident | unit_pages(from, to), true); }

size_t units_free_resident(void) { return free_resident; }

void units_taken(size_t first, size_t n) {
    for (size_t u = first; u < first + n; u++) free_resident -= bytes_of(unit_record(u)->resident);
}

void units_given(size_t first, size_t n) {
    for (size_t u = first; u < first + n; u++) free_resident += bytes_of(unit_record(u)->resident);
}

size_t units_forget(size_t first, size_t n) {
    size_t before = free_resident;
    for (size_t u = first; u < first + n; u++) unit_set_resident(unit_record(u), 0, false);
    return (before - free_resident) >> hak_page_shift;
}

/* ---- giving back ---- */

void unit_release_now(unit_release *b) {
    size_t n = os_advice_on() ? b->n : 0, done = n ? os_madvise_ranges_guarded(b->range, n, lean_advice()) : 0;
    for (size_t i = 0; i < n; i++) { /* done or not: nobody knows how far a refused call came */
        unit *r = b->part[i].of;
        unit_set_resident(r, r->resident & (uint16_t)~b->part[i].pages, true);
        if (i >= done) continue;
        STAT(lean_decommit);
        STAT_N(pages_released, count_ones(b->part[i].pages));
    }
    b->n = 0;
}

void unit_release_add(unit_release *b, unit *r, uint16_t pages) {
    char *base = unit_address(unit_number(r));
    for (uint32_t left = pages & r->resident; left;) {
        unsigned at = (unsigned)__builtin_ctz(left), n = (unsigned)__builtin_ctz(~(left >> at));
        uint16_t run = (uint16_t)(bits32(at + n) & ~bits32(at));
        if (b->n == OS_RANGES) unit_release_now(b);
        b->range[b->n] = (os_range){base + ((size_t)at << hak_page_shift), (size_t)n << hak_page_shift};
        b->part[b->n].of = r;
        b->part[b->n++].pages = run;
        left &= ~(uint32_t)run;
    }
}
