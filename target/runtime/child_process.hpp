// SPDX-License-Identifier: Apache-2.0
// ChildProcess: another program, run to its end with a text on its standard input.
//
// Invariants:
//   CH1 The program gets nothing of ours: no descriptor, no blocked or ignored signal. It leads its own process group.
//   CH2 run() ends when the program has ended and is reaped, whatever happens meanwhile.
// Threads: one processor's.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "gemel/clock.hpp"
#include "gemel/result.hpp"
#include "gemel/task.hpp"

namespace gemel {

class ChildProcess {
  public:
    explicit ChildProcess(Clock& clock) : clock_(clock) {}

    /// Runs `arguments` (the first is the program, looked for in PATH where it has no slash). Success: it ended with
    /// code 0. Errors: kNotFound (it cannot be started), kTimedOut (it was killed, its time being over), kAborted (by
    /// kill()), kIo (another code or a signal; with the first line that it wrote to standard error), kResources.
    Task<Result<void>> run(std::vector<std::string> arguments, std::string input, Duration most);
    /// Ends it and all of its process group.
    void kill();

  private:
    Clock& clock_;
    pid_t pid_ = 0;
    bool killed_ = false;
};

}  // namespace gemel
