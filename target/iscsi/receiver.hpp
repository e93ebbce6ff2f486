// SPDX-License-Identifier: Apache-2.0
// Receiver: turns the bytes of a stream into headers and data segments. One read brings as many PDUs as are there;
// large data goes straight into the buffer of its command.
//
// Invariants:
//   R1  No memory is taken from a length on the wire: the receive buffer has one of two fixed sizes, and the place for
//       data is the caller's.
//   R2  Bytes of a data segment beyond the caller's place are read and dropped.
// Threads: one executor at a time, with the stream.
#pragma once

#include <memory>

#include "gemel/clock.hpp"
#include "gemel/stream.hpp"
#include "target/iscsi/digest.hpp"

namespace gemel::iscsi {

enum class DataCheck : std::uint8_t { kGood, kDigestError };

class Receiver {
  public:
    explicit Receiver(Stream& stream);

    [[nodiscard]] std::size_t available() const { return end_ - begin_; }
    /// The bytes received and not consumed; valid until the next coroutine of this class.
    [[nodiscard]] const std::byte* data() const { return memory_.get() + begin_; }
    void consume(std::size_t bytes) { begin_ += bytes; }

    /// Reads until `bytes` are available. REQUIRES: bytes <= 4096.
    /// Errors: kClosed at the end of the stream, and what the stream says.
    Task<Result<void>> need(std::size_t bytes);

    /// Whether a whole data segment with padding and digest is here already: take_data() instead of receive_data().
    [[nodiscard]] bool data_is_here(std::size_t length, bool digest) const {
        return available() >= wire_bytes(length, digest);
    }
    /// REQUIRES: data_is_here(length, digest).
    DataCheck take_data(MutableBytes into, std::size_t length, bool digest);
    /// Receives `length` bytes; the first into.size() of them are stored. Then padding and digest. The stored bytes are
    /// to be believed only with kGood.
    Task<Result<DataCheck>> receive_data(MutableBytes into, std::size_t length, bool digest);

    /// After a last word: reads and drops what still comes until the peer hangs up, or `most` has passed and the stream
    /// is closed. A stream that is closed at once may take the last word with it.
    Task<void> linger(Clock& clock, Duration most);
    /// All bytes received so far.
    [[nodiscard]] std::uint64_t total_bytes() const { return total_bytes_; }

  private:
    static constexpr std::size_t kSmallBytes = 8192;
    static constexpr std::size_t kLargeBytes = 120 * 1024;  ///< below the size from which malloc maps pages
    static constexpr unsigned kShrinkAfter = 16;            ///< reads in a row that the small buffer would have held
    /// Data of at least this size is worth a read of its own; below, one read that brings more PDUs is better.
    static constexpr std::size_t kDirectBytes = 8192;
    /// After a large data segment the next read looks only for the next header, so that the next large segment is not
    /// copied through the receive buffer.
    static constexpr std::size_t kHeaderRead = 1024;

    static std::size_t wire_bytes(std::size_t length, bool digest) {
        return length == 0 ? 0 : length + padding_of(length) + (digest ? kDigestBytes : 0);
    }
    void make_room(std::size_t bytes);
    void resize(std::size_t capacity);

    Stream& stream_;
    std::unique_ptr<std::byte[]> memory_;
    std::size_t capacity_ = kSmallBytes;
    std::size_t begin_ = 0;
    std::size_t end_ = 0;
    bool grow_ = false;
    unsigned small_reads_ = 0;
    bool after_large_data_ = false;
    std::uint64_t total_bytes_ = 0;
};

}  // namespace gemel::iscsi
