/* Shared objects that come late: a plugin that allocates, and the allocator itself, whose thread-local storage must still fit.
 * The runner names both files in the environment. */
#include "test.h"

#include <dlfcn.h>
#include <pthread.h>

static void *opened(const char *variable) {
    const char *path = getenv(variable);
    void *handle = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!handle) fprintf(stderr, "%s=%s: %s\n", variable, path ? path : "", path ? dlerror() : "not set");
    CHECK(handle);
    return handle;
}

static void plugins_share_the_heap(void) {
    for (int round = 0; round < 50; round++) {
        void *handle = opened("HAK_TEST_PLUGIN");
        char *(*made)(size_t) = (char *(*)(size_t))(intptr_t)dlsym(handle, "plugin_made");
        void (*dropped)(char *) = (void (*)(char *))(intptr_t)dlsym(handle, "plugin_dropped");
        CHECK(made && dropped);
        char *theirs = made(500), *mine = malloc(500), *large = made(300000);
        CHECK(theirs && mine && large && theirs[499] == 7 && large[299999] == 7);
        dropped(mine);
        free(theirs);
        CHECK(dlclose(handle) == 0);
        CHECK(large[0] == 7); /* blocks outlive the plugin that made them */
        free(large);
    }
}

static void *(*late_malloc)(size_t);
static void *(*late_realloc)(void *, size_t);
static void (*late_free)(void *);

static void *use_late_allocator(void *argument) {
    uint32_t key = *(uint32_t *)argument;
    for (size_t size = 1; size < 3 << 20; size = size * 2 + 1) {
        void *p = late_malloc(size);
        CHECK(p);
        fill(p, size, key);
        p = late_realloc(p, size * 2);
        CHECK(p && is_filled(p, size, key));
        late_free(p);
    }
    return NULL;
}

static void allocator_comes_late(void) {
    pthread_t ids[4];
    uint32_t keys[4] = {1, 2, 3, 4};
    void *handle = opened("HAK_TEST_LIBRARY");
    late_malloc = (void *(*)(size_t))(intptr_t)dlsym(handle, "malloc");
    late_realloc = (void *(*)(void *, size_t))(intptr_t)dlsym(handle, "realloc");
    late_free = (void (*)(void *))(intptr_t)dlsym(handle, "free");
    CHECK(late_malloc && late_realloc && late_free);
    use_late_allocator(&keys[0]);
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&ids[i], NULL, use_late_allocator, &keys[i]) == 0);
    for (int i = 0; i < 4; i++) CHECK(pthread_join(ids[i], NULL) == 0);
    CHECK(dlclose(handle) == 0);
    use_late_allocator(&keys[0]); /* an allocator stays: its blocks may live anywhere */
}
int main(void) {
    RUN(plugins_share_the_heap);
    if (getenv("HAK_TEST_LIBRARY")) RUN(allocator_comes_late);
    else SKIP(allocator_comes_late, "no libhakmem.so was built");
    return 0;
}
