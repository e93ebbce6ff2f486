// SPDX-License-Identifier: Apache-2.0
// The limit of open files. The process's own limit is put back.
#include "target/runtime/descriptor_limit.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <vector>

#include "tests/support/recording_events.hpp"

namespace gemel {
namespace {

class DescriptorLimit : public ::testing::Test {
  protected:
    DescriptorLimit() { EXPECT_EQ(::getrlimit(RLIMIT_NOFILE, &before_), 0); }
    ~DescriptorLimit() override { ::setrlimit(RLIMIT_NOFILE, &before_); }
    [[nodiscard]] static rlim_t soft() {
        rlimit now{};
        ::getrlimit(RLIMIT_NOFILE, &now);
        return now.rlim_cur;
    }
    rlimit before_{};
    sim::RecordingEvents events_;
};

TEST_F(DescriptorLimit, IsRaisedToTheHardOne) {
    const rlimit low{64, before_.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
    EXPECT_EQ(raise_descriptor_limit(65, events_), before_.rlim_max);
    EXPECT_EQ(soft(), before_.rlim_max);
    EXPECT_FALSE(events_.has("descriptors-short"));
}

TEST_F(DescriptorLimit, ThatIsTooLowIsAnEventWithBothNumbers) {
    EXPECT_EQ(raise_descriptor_limit(before_.rlim_max + 1, events_), before_.rlim_max);
    ASSERT_TRUE(events_.has("descriptors-short"));
    const std::string cause = events_.all().front().cause;
    EXPECT_TRUE(cause.contains(std::to_string(before_.rlim_max))) << cause;
    EXPECT_TRUE(cause.contains(std::to_string(before_.rlim_max + 1))) << cause;
}

}  // namespace
}  // namespace gemel
