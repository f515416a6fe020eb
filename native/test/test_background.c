/* The background thread: memory goes back while nobody allocates, in a child of fork too; it takes no signals and ends with the program. */
#include "giving_back.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>

/* Lies on the stack of every thread. */
static _Thread_local volatile char plenty[300000];

static void memory_goes_back_in_silence(void) { burst_goes_back(NULL); }

/* A line "SigBlk: mask" of the thread of that name; 0: there is none. */
static unsigned long long blocked_in(const char *name) {
    DIR *tasks = opendir("/proc/self/task");
    CHECK(tasks);
    unsigned long long found = 0;
    for (struct dirent *task; (task = readdir(tasks));) {
        char path[300], line[256];
        bool is_it = false;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", task->d_name);
        FILE *status = task->d_name[0] == '.' ? NULL : fopen(path, "r");
        while (status && fgets(line, sizeof line, status)) {
            char is_named[64] = "";
            if (sscanf(line, "Name: %63s", is_named) == 1) is_it = strcmp(is_named, name) == 0;
            if (is_it) sscanf(line, "SigBlk: %llx", &found);
        }
        if (status) fclose(status);
    }
    closedir(tasks);
    return found;
}

static void it_takes_no_signals(void) {
    unsigned long long blocked = 0;
    for (int i = 0; i < 500 && !(blocked = blocked_in("hakmem")); i++) sleep_ms(10);
    static const int signals[] = {SIGINT, SIGTERM, SIGUSR1, SIGALRM, SIGCHLD, SIGPROF};
    for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++) CHECK(blocked >> (signals[i] - 1) & 1);
}

static void a_child_of_fork_has_its_own(void) {
#ifndef __SANITIZE_THREAD__
    int status;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(60);
        CHECK(!blocked_in("hakmem"));
        burst_goes_back(NULL);
        CHECK(blocked_in("hakmem"));
        exit(0); /* through the end of the program, which waits for it */
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
#endif
}

int main(int argc, char **argv) {
    plenty[argc] = 1;
    if (!hakmem_stats_get) {
        SKIP(memory_goes_back_in_silence, "not hakmem");
        return 0;
    }
    under_lean(argv, (const char *const[][2]){{"HAKMEM_SS_LEAN_BACKGROUND_MS", "10"},
                                              {"HAKMEM_SS_LEAN_DECAY_MS", "30"},
                                              {"HAKMEM_SS_LEAN_CACHE_IDLE_MS", "20"},
                                              {NULL}});
    RUN(memory_goes_back_in_silence);
    RUN(it_takes_no_signals);
    RUN(a_child_of_fork_has_its_own);
    return 0;
}
