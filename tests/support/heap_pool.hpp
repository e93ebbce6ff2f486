// SPDX-License-Identifier: Apache-2.0
// HeapPool: buffers from the heap, so that a sanitizer sees every byte past the end. Counts what is out.
// Threads: any.
#pragma once

#include <atomic>
#include <cstdlib>
#include <new>

#include "gemel/buffer.hpp"

namespace gemel::sim {

class HeapPool : public BufferPool {
  public:
    explicit HeapPool(std::size_t limit_bytes = 1U << 30U) : limit_(limit_bytes) {}
    ~HeapPool() override { CHECK(out_ == 0); }
    [[nodiscard]] std::size_t outstanding_bytes() const { return out_; }

    Result<Buffer> allocate(std::size_t bytes) override {
        const std::size_t size = round_up(std::max<std::size_t>(bytes, 1), kBlockBytes);
        if (out_.fetch_add(size) + size > limit_) {
            out_ -= size;
            return fail(Errc::kResources, "the test's buffer pool is at its bound");
        }
        auto* memory = static_cast<std::byte*>(::operator new(size, std::align_val_t(kBlockBytes)));
        const std::size_t infos = size / kBlockBytes + 1;
        return Buffer(*this, MutableBytes(memory, size), std::span(new BlockInfo[infos], infos), 0);
    }

  private:
    void release(MutableBytes memory, std::span<BlockInfo> infos, std::uint32_t /*token*/) noexcept override {
        out_ -= memory.size();
        ::operator delete(memory.data(), std::align_val_t(kBlockBytes));
        delete[] infos.data();
    }
    std::size_t limit_;
    std::atomic<std::size_t> out_{0};
};

}  // namespace gemel::sim
