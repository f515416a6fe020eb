/* lean: the one place where gates, policy and the kernel meet to decide what stays resident. Knows bytes, not SuperSlabs.
 *
 *   resident   bytes of the arena that hold, or held and may still hold, data; superslab keeps it true
 *   metadata   bytes of tables in use
 *   others     bytes of the process that are not ours: of the program, of libraries; read from the kernel; below 0
 *              where some of ours were never touched
 *   excess     others + resident + metadata - what Lean aims at, a little below the target; not below 0; 0 outside Lean
 *
 * The names that begin with ss_ are the user's.
 */
#ifndef HAK_LEAN_H
#define HAK_LEAN_H

#include "base.h"
#include "policy.h"

void lean_init(void); /* after gates_load and os_init */
void lean_lock(void), lean_unlock(void); /* around fork */

int ss_mem_lean_enabled(void);
int ss_mem_lean_target_mb(void);
typedef int ss_mem_lean_decommit_mode_t; /* DECOMMIT_FREE, DECOMMIT_DONTNEED, DECOMMIT_OFF */
ss_mem_lean_decommit_mode_t ss_mem_lean_decommit_mode(void);

extern HIDDEN bool hak_lean_releases;
static inline bool lean_releases(void) { return hak_lean_releases; } /* LEAN with FREE or DONTNEED */

void lean_add_resident(size_t bytes); /* modulo 2^64: a negative number shrinks */
void lean_set_metadata(size_t bytes);
size_t lean_resident(void);
size_t lean_metadata(void);
size_t lean_excess(void);
policy_pressure lean_pressure(void); /* as of the last lean_excess() */

/* Empty SuperSlabs worth keeping resident below the target; lean_beat: one has become empty. Callers hold the SuperSlab lock. */
void lean_beat(void);
size_t lean_superslabs_to_keep(void);

int lean_advice(void);               /* MADV_FREE or MADV_DONTNEED */
bool lean_released_reads_zero(void); /* what was given back so reads as zeros */
/* Pages go back, the mapping stays; 0 on success. When to call it is the caller's business. */
int ss_maybe_decommit_superslab(void *ptr, size_t size);
void ss_os_stats_record_lean_retire(void);

/* What goes back outside of a search is paid for from the same CPU budget: whether there is some; CPU time of the thread since which it was spent. */
bool lean_may_spend(void);
void lean_spent_since(uint64_t t0);

/* When to look for free pages: enough was freed and the process is above its target or has fallen since (policy_fell), or pages are old
 * (SS_LEAN_DECAY_MS); and the CPU budget allows it. */
typedef struct {
    uint64_t t0; /* CPU time of the thread */
    size_t freed, resident;
    bool over, kept; /* kept: empty SuperSlabs that were kept go back, too; not where memory only fell below the target */
} lean_purge;
void lean_freed(size_t bytes);
bool lean_purge_begin(lean_purge *p, bool at_rest); /* at rest: also for little, nobody allocates meanwhile */
void lean_purge_end(const lean_purge *p);

#endif
