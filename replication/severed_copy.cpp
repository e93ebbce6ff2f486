// SPDX-License-Identifier: Apache-2.0
#include "replication/severed_copy.hpp"

#include "replication/mirror.hpp"

namespace gemel::replication {

namespace {

/// Added to the identity of this node's volume, which may be that of the pair.
constexpr std::uint8_t kOther = 0x5c;

Task<Result<void>> refuse(Errc code, std::string why) {
    co_return fail(code, std::move(why));
}

}  // namespace

DeviceLimits SeveredCopy::limits() const {
    return mirror_.limits();
}

Task<Result<void>> SeveredCopy::read(Lba lba, Slice to, ReadOptions options) {
    return mirror_.read_severed(lba, to, options);
}

Task<Result<void>> SeveredCopy::write(Lba /*lba*/, Slice /*from*/, WriteOptions /*options*/) {
    return refuse(Errc::kReadOnly, name() + " is only read");
}

Task<Result<void>> SeveredCopy::discard(Lba /*lba*/, SectorCount /*count*/) {
    return refuse(Errc::kReadOnly, name() + " is only read");
}

Task<Result<void>> SeveredCopy::flush() {
    co_return Result<void>{};
}

void SeveredCopy::announce(SectorCount sectors) {
    if (DeviceObserver* o = observer_.load(); o != nullptr) {
        o->capacity_changed(sectors);
    }
}

Uuid SeveredCopy::identity() const {
    Uuid id = mirror_.own_uuid();
    for (std::byte& b : id.bytes) {
        b ^= std::byte{kOther};
    }
    return id;
}

std::string SeveredCopy::name() const {
    return "severed copy of volume " + mirror_.volume();
}

}  // namespace gemel::replication
