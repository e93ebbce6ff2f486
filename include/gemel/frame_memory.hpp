// SPDX-License-Identifier: Apache-2.0
// Memory of coroutine frames: per-thread free lists by size class, so that a command in steady state allocates nothing.
// Under a sanitizer it is plain operator new, so that every use after free is seen.
// Threads: each thread has its own lists; a frame freed on another thread goes to that thread's list.
#pragma once

#include <array>
#include <cstddef>
#include <new>
#include <utility>

namespace gemel::detail {

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define GEMEL_PLAIN_FRAMES 1
#endif
#endif

#ifdef GEMEL_PLAIN_FRAMES

inline void* frame_allocate(std::size_t size) {
    return ::operator new(size);
}
inline void frame_free(void* p, std::size_t /*size*/) noexcept {
    ::operator delete(p);
}

#else

class FrameLists {
  public:
    FrameLists() = default;
    FrameLists(const FrameLists&) = delete;
    FrameLists& operator=(const FrameLists&) = delete;
    ~FrameLists() {
        for (Node*& head : heads_) {
            while (head != nullptr) {
                ::operator delete(std::exchange(head, head->next));
            }
        }
        closed_ = true;
    }
    void* allocate(std::size_t size) {
        const std::size_t c = class_of(size);
        if (c < kClasses && heads_[c] != nullptr) {
            --counts_[c];
            return std::exchange(heads_[c], heads_[c]->next);
        }
        return ::operator new(c < kClasses ? (c + 1) * kStep : size);
    }
    void free(void* p, std::size_t size) noexcept {
        const std::size_t c = class_of(size);
        if (closed_ || c >= kClasses || counts_[c] == kKept) {
            ::operator delete(p);
            return;
        }
        heads_[c] = new (p) Node{heads_[c]};
        ++counts_[c];
    }

  private:
    struct Node {
        Node* next;
    };
    static constexpr std::size_t kStep = 128;
    static constexpr std::size_t kClasses = 24;  ///< frames up to 3 KiB
    static constexpr std::size_t kKept = 1024;   ///< per class and thread
    static std::size_t class_of(std::size_t size) { return (size - 1) / kStep; }

    std::array<Node*, kClasses> heads_{};
    std::array<std::size_t, kClasses> counts_{};
    bool closed_ = false;
};

inline FrameLists& frame_lists() {
    static thread_local FrameLists lists;
    return lists;
}
inline void* frame_allocate(std::size_t size) {
    return frame_lists().allocate(size);
}
inline void frame_free(void* p, std::size_t size) noexcept {
    frame_lists().free(p, size);
}

#endif

}  // namespace gemel::detail
