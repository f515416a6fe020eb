// C++: new and delete in all their forms come to the same heap, and throw when it is full.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

extern "C" int hakmem_check(void) __attribute__((weak));

#define CHECK(condition)                                                                 \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            std::fprintf(stderr, "not ok: %s:%d: %s\n", __FILE__, __LINE__, #condition); \
            std::abort();                                                                \
        }                                                                                \
    } while (0)

#define RUN(test)                                    \
    do {                                             \
        test();                                      \
        CHECK(!hakmem_check || hakmem_check() == 1); \
        std::printf("ok %s\n", #test);               \
        std::fflush(stdout);                         \
    } while (0)

namespace {

template <std::size_t alignment, std::size_t size> struct alignas(alignment) over_aligned {
    unsigned char bytes[size];
};

bool aligned(const void *p, std::size_t alignment) { return reinterpret_cast<std::uintptr_t>(p) % alignment == 0; }

void plain_and_sized_delete() {
    for (std::size_t size = 0; size < 3000000; size = size * 3 / 2 + 1) {
        void *a = ::operator new(size), *b = ::operator new[](size), *c = ::operator new(size, std::nothrow);
        CHECK(a && b && c && a != b && b != c && aligned(a, 16) && aligned(b, 16));
        std::memset(a, 1, size);
        std::memset(b, 2, size);
        std::memset(c, 3, size);
        CHECK(size == 0 || (static_cast<char *>(a)[size - 1] == 1 && static_cast<char *>(b)[0] == 2));
        ::operator delete(a, size);
        ::operator delete[](b, size);
        ::operator delete(c, std::nothrow);
    }
    ::operator delete(nullptr);
    ::operator delete(nullptr, std::size_t{8});
}

void aligned_new_and_delete() {
    for (std::size_t alignment = 1; alignment <= std::size_t{4} << 20; alignment *= 2)
        for (std::size_t size : {std::size_t{1}, std::size_t{24}, alignment, alignment * 3 + 5, std::size_t{100000}}) {
            auto how = std::align_val_t{alignment};
            void *a = ::operator new(size, how), *b = ::operator new[](size, how), *c = ::operator new(size, how, std::nothrow);
            CHECK(aligned(a, alignment) && aligned(b, alignment) && aligned(c, alignment));
            std::memset(a, 1, size);
            std::memset(b, 2, size);
            CHECK(static_cast<char *>(a)[size - 1] == 1);
            ::operator delete(a, size, how);
            ::operator delete[](b, how);
            ::operator delete(c, how, std::nothrow);
        }
}

template <typename T> void objects_of() {
    std::vector<std::unique_ptr<T>> singles;
    for (int i = 0; i < 50; i++) {
        singles.push_back(std::make_unique<T>());
        CHECK(aligned(singles.back().get(), alignof(T)));
        std::memset(singles.back()->bytes, i, sizeof(T));
    }
    for (int i = 0; i < 50; i++) CHECK(singles[static_cast<std::size_t>(i)]->bytes[sizeof(T) - 1] == i);
    std::vector<T> many(7);
    many.resize(300);
    CHECK(aligned(many.data(), alignof(T)));
    delete[] new T[3];
}

void over_aligned_objects() {
    objects_of<over_aligned<16, 16>>();
    objects_of<over_aligned<32, 96>>();
    objects_of<over_aligned<64, 64>>();
    objects_of<over_aligned<4096, 4096>>();
}

void impossible_sizes_throw() {
    static volatile std::size_t too_much = PTRDIFF_MAX;
    for (std::size_t size : {std::size_t{too_much}, std::size_t{too_much} - 4096}) {
        bool thrown = false;
        try {
            ::operator delete(::operator new(size));
        } catch (const std::bad_alloc &) {
            thrown = true;
        }
        CHECK(thrown);
        thrown = false;
        try {
            ::operator delete(::operator new(size, std::align_val_t{64}), std::align_val_t{64});
        } catch (const std::bad_alloc &) {
            thrown = true;
        }
        CHECK(thrown);
        CHECK(::operator new(size, std::nothrow) == nullptr);
    }
}

int handled;
void give_up_the_second_time() {
    if (++handled == 2) std::set_new_handler(nullptr);
}

void the_handler_is_asked() {
    static volatile std::size_t too_much = PTRDIFF_MAX;
    std::set_new_handler(give_up_the_second_time);
    CHECK(::operator new(too_much, std::nothrow) == nullptr &&handled == 2);
}

void containers_across_threads() {
    std::vector<std::map<std::string, std::vector<std::string>>> made(4);
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < made.size(); t++)
        threads.emplace_back([&made, t] {
            for (std::size_t i = 0; i < 3000; i++) made[t][std::to_string(i % 97)].push_back(std::string(i % 60, 'x'));
        });
    for (auto &thread : threads) thread.join();
    threads.clear();
    CHECK(made[0] == made[3]);
    for (std::size_t t = 0; t < made.size(); t++)
        threads.emplace_back([&made, t] { made[(t + 1) % made.size()].clear(); }); // another thread's blocks
    for (auto &thread : threads) thread.join();
    CHECK(std::all_of(made.begin(), made.end(), [](const auto &one) { return one.empty(); }));
}

} // namespace

int main() {
    RUN(plain_and_sized_delete);
    RUN(aligned_new_and_delete);
    RUN(over_aligned_objects);
    RUN(impossible_sizes_throw);
    RUN(the_handler_is_asked);
    RUN(containers_across_threads);
    return 0;
}
