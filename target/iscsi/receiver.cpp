// SPDX-License-Identifier: Apache-2.0
#include "target/iscsi/receiver.hpp"

namespace gemel::iscsi {

Receiver::Receiver(Stream& stream) : stream_(stream), memory_(new std::byte[kSmallBytes]) {}

void Receiver::resize(std::size_t capacity) {
    std::unique_ptr<std::byte[]> other(new std::byte[capacity]);
    std::memcpy(other.get(), data(), available());
    memory_ = std::move(other);
    capacity_ = capacity;
    end_ -= begin_;
    begin_ = 0;
    small_reads_ = 0;
    grow_ = false;
}

void Receiver::make_room(std::size_t bytes) {
    if (begin_ == end_) {
        begin_ = end_ = 0;
    }
    if (grow_ && capacity_ < kLargeBytes) {
        resize(kLargeBytes);
    } else if (capacity_ > kSmallBytes && small_reads_ >= kShrinkAfter && available() < kSmallBytes / 2) {
        resize(kSmallBytes);
    }
    if (begin_ + bytes > capacity_) {
        std::memmove(memory_.get(), data(), available());
        end_ -= begin_;
        begin_ = 0;
    }
}

Task<Result<void>> Receiver::need(std::size_t bytes) {
    CHECK(bytes <= kSmallBytes / 2);
    while (available() < bytes) {
        make_room(bytes);
        const std::size_t most = after_large_data_ ? std::min(kHeaderRead, capacity_ - end_) : capacity_ - end_;
        CO_TRY(const std::size_t got, co_await stream_.read_some(MutableBytes(memory_.get() + end_, most)));
        if (got == 0) {
            co_return fail(Errc::kClosed, "the initiator closed the connection");
        }
        end_ += got;
        total_bytes_ += got;
        grow_ = got == most && !after_large_data_;
        small_reads_ = got < kSmallBytes / 2 ? small_reads_ + 1 : 0;
    }
    co_return Result<void>{};
}

Task<void> Receiver::linger(Clock& clock, Duration most) {
    struct CloseTimer : Timer {
        Stream* stream = nullptr;
    } timer;
    timer.stream = &stream_;
    timer.run = [](Work& w) noexcept { static_cast<CloseTimer&>(w).stream->close(); };
    clock.arm(timer, clock.now() + most);
    Result<void> more;
    while (more) {
        consume(available());
        more = co_await need(1);
    }
    clock.cancel(timer);
}

DataCheck Receiver::take_data(MutableBytes into, std::size_t length, bool digest) {
    if (length == 0) {
        return DataCheck::kGood;
    }
    const std::size_t padded = length + padding_of(length);
    const std::byte* from = data();
    if (!into.empty()) {
        std::memcpy(into.data(), from, std::min(into.size(), length));
    }
    const bool good = !digest || digest_matches(from + padded, crc32c(ConstBytes(from, padded)));
    consume(wire_bytes(length, digest));
    after_large_data_ = false;
    return good ? DataCheck::kGood : DataCheck::kDigestError;
}

Task<Result<DataCheck>> Receiver::receive_data(MutableBytes into, std::size_t length, bool digest) {
    std::uint32_t crc = 0;
    for (std::size_t done = 0; done < length;) {
        const std::size_t stored = std::min(into.size(), length);
        if (available() == 0 && stored >= done + kDirectBytes) {
            const MutableBytes place = into.subspan(done, stored - done);
            CO_TRY(const std::size_t got, co_await stream_.read_some(place));
            if (got == 0) {
                co_return fail(Errc::kClosed, "the initiator closed the connection inside a data segment");
            }
            crc = digest ? crc32c(place.first(got), crc) : 0;
            done += got;
            total_bytes_ += got;
            continue;
        }
        if (available() == 0) {
            CO_TRY_VOID(co_await need(1));
        }
        const std::size_t n = std::min(available(), length - done);
        if (done < into.size()) {
            std::memcpy(into.data() + done, data(), std::min(n, into.size() - done));
        }
        crc = digest ? crc32c(ConstBytes(data(), n), crc) : 0;
        consume(n);
        done += n;
    }
    after_large_data_ = length >= 2 * kDirectBytes;
    const std::size_t padding = padding_of(length);
    const bool has_digest = digest && length > 0;
    CO_TRY_VOID(co_await need(padding + (has_digest ? kDigestBytes : 0)));
    const bool good = !has_digest || digest_matches(data() + padding, crc32c(ConstBytes(data(), padding), crc));
    consume(padding + (has_digest ? kDigestBytes : 0));
    co_return good ? DataCheck::kGood : DataCheck::kDigestError;
}

}  // namespace gemel::iscsi
