// SPDX-License-Identifier: Apache-2.0
#include "target/backend/backend_table.hpp"

namespace gemel {

namespace {

std::string known_kinds() {
    std::string out;
    for (const BackendRow& row : kBackendTable) {
        out += (out.empty() ? "" : ", ") + std::string(row.name);
    }
    return out;
}

}  // namespace

Task<DeviceResult> open_backend(Environment environment, BackendSpec spec) {
    const BackendRow* row = find_backend(spec.kind);
    if (row == nullptr) {
        co_return fail(Errc::kUnsupported, "no member device of kind '" + spec.kind + "'; known are " + known_kinds());
    }
    if (row->needs_path && spec.path.empty()) {
        co_return fail(Errc::kInvalidArgument, "a member of kind '" + spec.kind + "' needs a path");
    }
    if (row->needs_bytes && spec.bytes == 0) {
        co_return fail(Errc::kInvalidArgument, "a member of kind '" + spec.kind + "' needs a size");
    }
    if (spec.bytes % kBlockBytes != 0) {
        co_return fail(Errc::kInvalidArgument,
                       "a member's size of " + std::to_string(spec.bytes) + " bytes is not a multiple of 4096");
    }
    co_return co_await row->open(environment, std::move(spec));
}

}  // namespace gemel
