// SPDX-License-Identifier: Apache-2.0
#include "target/runtime/descriptor_limit.hpp"

#include <sys/resource.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace gemel {

std::uint64_t raise_descriptor_limit(std::uint64_t needed, EventSink& events) {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return 0;
    }
    std::string why;
    if (limit.rlim_cur < limit.rlim_max) {
        const rlimit raised{limit.rlim_max, limit.rlim_max};
        if (::setrlimit(RLIMIT_NOFILE, &raised) == 0) {
            limit = raised;
        } else {
            why = std::string("; it cannot be raised: ") + std::strerror(errno);
        }
    }
    if (limit.rlim_cur < needed) {
        events.emit({Severity::kWarning, "descriptors-short", "this process",
                     "it may have " + std::to_string(limit.rlim_cur) + " files and connections open, and needs " +
                         std::to_string(needed) + " when all sessions are in use" + why,
                     "raise the hard limit: LimitNOFILE= of the service, or ulimit -Hn; until then initiators may find "
                     "no place"});
    }
    return limit.rlim_cur;
}

}  // namespace gemel
