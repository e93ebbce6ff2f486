// SPDX-License-Identifier: Apache-2.0
// $GEMEL_SWITCH names a deliberate bug that is on in the whole test binary: tests/sim/ctest.sh rare asks for those that
// a history hardly ever meets.
//
// Invariants:
//   TE1 A name that is not known ends the process: it is never taken for no bug.
// Threads: set before main().
#include "gemel/test_switch.hpp"

#ifdef GEMEL_TEST_SWITCHES

#include <algorithm>
#include <cstdlib>

#include "gemel/check.hpp"

namespace gemel {
namespace {

[[maybe_unused]] const bool kSwitched = [] {
    const char* const name = std::getenv("GEMEL_SWITCH");
    if (name != nullptr) {
        const auto* const row = std::ranges::find(kTestSwitches, std::string_view(name), &TestSwitchRow::name);
        CHECK(row != kTestSwitches.end());
        active_test_switch = row->id;
    }
    return name != nullptr;
}();

}  // namespace
}  // namespace gemel

#endif
