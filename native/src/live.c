#include "live.h"

#include "diag.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

live_page *hak_live;
size_t hak_live_units;
unsigned hak_live_shift;

static char folder[1024], path[1088];
static pid_t owner;  /* whose file `path` is; 0: no file */
static struct stat made;

static size_t bytes_for(size_t units) {
    size_t words = units + (units >> hak_live_shift) * LIVE_HEAD;
    return round_up(sizeof(live_page) + words * sizeof(uint64_t), (size_t)1 << hak_page_shift);
}

/* Room that is really there: a write into a hole of a file on a full disk would end the program. */
static int make_room(int fd, size_t bytes) {
    struct rlimit lim; /* beyond it the kernel would end the program */
    if (!getrlimit(RLIMIT_FSIZE, &lim) && lim.rlim_cur != RLIM_INFINITY && bytes > lim.rlim_cur) return EFBIG;
    int error;
    do error = posix_fallocate(fd, 0, (off_t)bytes);
    while (error == EINTR);
    return error;
}

/* A new file of this process, hidden until it is complete. */
static int create_file(void) {
    (void)snprintf(path, sizeof path, "%s/.hakmem.%ld", folder, (long)getpid());
    int fd;
    for (int i = 0; i < 2; i++) {
        fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd >= 0 || errno != EEXIST || unlink(path)) break;
    }
    owner = fd < 0 || fstat(fd, &made) ? 0 : getpid();
    return fd;
}

/* What stands there under the name was left by a process that had the same number, or by this one before exec. */
COLD void live_publish(void) {
    char name[sizeof path];
    (void)snprintf(name, sizeof name, "%s/hakmem.%ld", folder, (long)getpid());
    if (!rename(path, name)) memcpy(path, name, sizeof path);
}

static void remove_file(void) {
    struct stat now;
    if (owner == getpid() && !lstat(path, &now) && now.st_ino == made.st_ino && now.st_dev == made.st_dev) (void)unlink(path);
    owner = 0;
}

COLD bool live_start(const char *where, unsigned ss_units) {
    int saved = errno;
    (void)snprintf(folder, sizeof folder, "%s", where);
    hak_live_shift = (unsigned)__builtin_ctz(ss_units);
    int fd = create_file(), error = fd < 0 ? errno : make_room(fd, sizeof(live_page));
    live_page *p = NULL;
    if (!error && !(p = os_map_file(NULL, fd, bytes_for(hak_arena_units)))) error = errno;
    if (fd >= 0) close(fd);
    if (p) {
        os_meta_move(&p->meta);
        stats_share(p->counts, LIVE_SLOTS, &p->moving);
        hak_live = p;
    } else {
        remove_file();
        hak_msg("HAKMEM_STATS_LIVE=%s: cannot make %s: %s; nothing is shown", where, path, strerror(error));
    }
    errno = saved;
    return p != NULL;
}

COLD void live_show(size_t units) {
    int saved = errno, cancel = cancel_off();
    poke(&hak_live->known, units);
    /* By name, not by a descriptor kept open: the program may close what it does not know. */
    int fd = owner == getpid() ? open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC) : -1;
    struct stat now;
    bool ours = fd >= 0 && !fstat(fd, &now) && now.st_ino == made.st_ino && now.st_dev == made.st_dev;
    if (ours && !make_room(fd, bytes_for(units))) {
        poke(&hak_live_units, units);
        __atomic_store_n(&hak_live->shown, units, __ATOMIC_RELEASE);
    }
    if (fd >= 0) close(fd);
    cancel_back(cancel);
    errno = saved;
}

static bool copy_into(int fd) {
    size_t size = bytes_for(hak_live_units), done = 0;
    for (ssize_t n; done < size; done += (size_t)n)
        if ((n = pwrite(fd, (char *)hak_live + done, size - done, (off_t)done)) <= 0) return false;
    return true;
}

COLD bool live_forked(void) {
    if (!hak_live) return false;
    int saved = errno, cancel = cancel_off(), fd = create_file();
    size_t all = bytes_for(hak_arena_units);
    bool ok = fd >= 0 && !make_room(fd, bytes_for(hak_live_units)) && copy_into(fd) && os_map_file(hak_live, fd, all);
    if (fd >= 0) close(fd);
    if (!ok) { /* silently: the parent said what it had to, and this child may be about to become another program */
        remove_file();
        hak_live_units = 0;
        (void)os_unshare(hak_live, round_up(sizeof(live_page), (size_t)1 << hak_page_shift), all);
    }
    cancel_back(cancel);
    errno = saved;
    return ok;
}

COLD void live_end(void) { remove_file(); }

COLD uint64_t live_start_ticks(void) {
    char buf[1024], *at;
    if (!os_read_small("/proc/self/stat", buf, sizeof buf) || !(at = strrchr(buf, ')'))) return 0;
    for (int field = 2; field < 22 && at; field++) at = strchr(at + 1, ' '); /* the name may hold blanks and brackets */
    return at ? strtoull(at, NULL, 10) : 0;
}
