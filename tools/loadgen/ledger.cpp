// SPDX-License-Identifier: Apache-2.0
// The ledger of acknowledged writes; see ledger.hpp.
#include "tools/loadgen/ledger.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>

#include "gemel/crc32c.hpp"
#include "gemel/units.hpp"
#include "tools/loadgen/stamp.hpp"

namespace gemel::loadgen {
namespace {

constexpr std::uint64_t kMagic = 0x3172'6764'654c'6d47;  // "GmLedgr1" as little-endian text
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kCheckedFrom = 16;
constexpr std::size_t kHeaderBytes = 48;
constexpr std::size_t kPossibleBytes = 16;

std::string where(std::uint64_t lba) {
    return "sector " + std::to_string(lba) + " ";
}

}  // namespace

Ledger::Ledger(std::uint64_t volume_tag, std::uint64_t sectors) : volume_tag_(volume_tag), acknowledged_(sectors, 0) {}

void Ledger::grow(std::uint64_t sectors) {
    if (sectors > acknowledged_.size()) {
        acknowledged_.resize(sectors, 0);
    }
}

void Ledger::acknowledged(std::uint64_t lba, std::uint64_t sectors, std::uint64_t sequence) {
    for (std::uint64_t s = lba; s < lba + sectors; ++s) {
        acknowledged_[s] = sequence;
        if (!possible_.empty()) {
            possible_.erase(s);
        }
    }
}

void Ledger::possible(std::uint64_t lba, std::uint64_t sectors, std::uint64_t sequence) {
    for (std::uint64_t s = lba; s < lba + sectors; ++s) {
        possible_.emplace(s, sequence);
    }
}

bool Ledger::owes(std::uint64_t lba, std::uint64_t sectors) const {
    for (std::uint64_t s = lba; s < lba + sectors && s < acknowledged_.size(); ++s) {
        if (acknowledged_[s] != 0) {
            return true;
        }
    }
    return false;
}

std::string Ledger::check(std::uint64_t lba, ConstBytes sector) {
    const std::uint64_t owed = acknowledged_[lba];
    if (owed == 0) {
        return {};  // L1
    }
    const StampReading found = read_stamp(sector);
    const std::string expected = "; acknowledged was write " + std::to_string(owed);
    if (found.state == StampState::kUnmarked) {
        return where(lba) + "holds no stamp" + expected;
    }
    if (found.state == StampState::kDamaged) {
        return where(lba) + "is torn or corrupted (wrong checksum)" + expected;
    }
    if (found.stamp.volume_tag != volume_tag_) {
        return where(lba) + "holds a sector of another volume" + expected;
    }
    if (found.stamp.lba != lba) {
        return where(lba) + "holds the sector written to " + std::to_string(found.stamp.lba) + expected;
    }
    const auto [first, last] = possible_.equal_range(lba);
    for (auto it = first; it != last; ++it) {
        if (it->second == found.stamp.sequence) {
            acknowledged(lba, 1, found.stamp.sequence);  // L2
            return {};
        }
    }
    if (found.stamp.sequence == owed) {
        possible_.erase(lba);  // L2
        return {};
    }
    const char* kind = found.stamp.sequence < owed ? "is stale: holds write " : "holds the unknown write ";
    return where(lba) + kind + std::to_string(found.stamp.sequence) + expected;
}

std::vector<std::byte> Ledger::encode() const {
    std::vector<std::byte> file(kHeaderBytes + acknowledged_.size() * 8 + possible_.size() * kPossibleBytes);
    LeWriter out(file);
    out.put(kMagic);
    out.put(kVersion);
    out.put(std::uint32_t{0});
    out.put(volume_tag_);
    out.put(std::uint64_t{acknowledged_.size()});
    out.put(next_sequence_);
    out.put(std::uint64_t{possible_.size()});
    for (const std::uint64_t sequence : acknowledged_) {
        out.put(sequence);
    }
    for (const auto& [lba, sequence] : possible_) {
        out.put(lba);
        out.put(sequence);
    }
    store_le(file.data() + 12, crc32c(ConstBytes(file).subspan(kCheckedFrom)));
    return file;
}

Result<Ledger> Ledger::decode(ConstBytes file) {
    LeReader in(file);
    if (in.get<std::uint64_t>() != kMagic || in.get<std::uint32_t>() != kVersion) {
        return fail(Errc::kCorrupt, "it is not a loadgen ledger of version 1");
    }
    const auto crc = in.get<std::uint32_t>();
    if (file.size() < kHeaderBytes || crc32c(file.subspan(kCheckedFrom)) != crc) {
        return fail(Errc::kCorrupt, "its checksum is wrong; it was cut short or damaged");
    }
    Ledger ledger;
    ledger.volume_tag_ = in.get<std::uint64_t>();
    const auto sectors = in.get<std::uint64_t>();
    ledger.next_sequence_ = in.get<std::uint64_t>();
    const auto possible = in.get<std::uint64_t>();
    const std::uint64_t body = file.size() - kHeaderBytes;
    if (sectors > body / 8 || possible > body / kPossibleBytes || sectors * 8 + possible * kPossibleBytes != body) {
        return fail(Errc::kCorrupt, "its length does not match its header");
    }
    ledger.acknowledged_.resize(sectors);
    for (std::uint64_t& sequence : ledger.acknowledged_) {
        sequence = in.get<std::uint64_t>();
    }
    for (std::uint64_t i = 0; i < possible; ++i) {
        const auto lba = in.get<std::uint64_t>();
        const auto sequence = in.get<std::uint64_t>();
        if (lba >= sectors) {
            return fail(Errc::kCorrupt, "it names a sector beyond its end");
        }
        ledger.possible_.emplace(lba, sequence);
    }
    return ledger;
}

Result<Ledger> load_ledger(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) {
        const int cause = errno;
        return fail(cause == ENOENT ? Errc::kNotFound : Errc::kIo, path + ": " + std::strerror(cause));
    }
    const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    auto ledger = Ledger::decode(as_bytes_of(text));
    if (!ledger) {
        return fail(ledger.error().code, "the ledger " + path + " cannot be used: " + ledger.error().message);
    }
    return ledger;
}

Result<void> save_ledger(const std::string& path, const Ledger& ledger) {
    const std::vector<std::byte> file = ledger.encode();
    const std::string temporary = path + ".new";
    const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) {
        return fail(Errc::kIo, temporary + ": " + std::strerror(errno));
    }
    ConstBytes rest(file);
    bool good = true;
    while (good && !rest.empty()) {
        const ssize_t n = ::write(fd, rest.data(), rest.size());
        good = n > 0;
        rest = rest.subspan(good ? static_cast<std::size_t>(n) : 0);
    }
    good = good && ::fsync(fd) == 0;
    const int cause = errno;
    ::close(fd);
    if (!good || std::rename(temporary.c_str(), path.c_str()) != 0) {
        return fail(Errc::kIo, path + " could not be written: " + std::strerror(good ? errno : cause));
    }
    return {};
}

}  // namespace gemel::loadgen
