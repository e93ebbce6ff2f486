// SPDX-License-Identifier: Apache-2.0
// A directory of a test's own, removed with all that is in it.
// Threads: the test's.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "gemel/check.hpp"

namespace gemel::test {

class ScratchDirectory {
  public:
    ScratchDirectory() : path_(::testing::TempDir() + "gemel_backend_XXXXXX") {
        CHECK(::mkdtemp(path_.data()) != nullptr);
    }
    ~ScratchDirectory() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    ScratchDirectory(const ScratchDirectory&) = delete;
    ScratchDirectory& operator=(const ScratchDirectory&) = delete;
    [[nodiscard]] std::string file(const std::string& name) const { return path_ + "/" + name; }

  private:
    std::string path_;
};

}  // namespace gemel::test
