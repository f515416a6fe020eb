#include "fork.h"

#include "background.h"
#include "depot.h"
#include "heap.h"
#include "lean.h"
#include "os.h"
#include "slab.h"
#include "stats.h"
#include "superslab.h"

bool hak_fork_handled;
static _Thread_local bool forking;

/* Registered twice where two threads come at once: the second time does nothing. */
static COLD void before(void) {
    if (hak_holds_all) return;
    heap_lock_all();
    depot_lock_all();
    slab_lock_all();
    ss_lock_all();
    lean_lock();
    stats_lock();
    os_lock();
    forking = hak_holds_all = true;
}

static COLD void after(void) {
    if (!forking) return;
    forking = hak_holds_all = false;
    os_unlock();
    stats_unlock();
    lean_unlock();
    ss_unlock_all();
    slab_unlock_all();
    depot_unlock_all();
    heap_unlock_all();
}

static COLD void after_in_child(void) {
    if (forking) background_forked();
    after();
}

COLD void fork_handle(void) {
    static _Thread_local bool asking; /* libc may allocate for its list */
    if (asking) return;
    asking = true;
    if (!pthread_atfork(before, after, after_in_child)) poke(&hak_fork_handled, true);
    asking = false;
}
