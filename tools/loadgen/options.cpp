// SPDX-License-Identifier: Apache-2.0
// Command line of loadgen.
#include "tools/loadgen/options.hpp"

#include <CLI/CLI.hpp>

namespace gemel::loadgen {
namespace {

void add_workload(CLI::App& app, Options& o, std::string& pattern) {
    app.add_option("--sessions", o.sessions, "iSCSI sessions")->check(CLI::Range(1, 4096));
    app.add_option("--depth", o.depth, "commands in flight per session")->check(CLI::Range(1, 1024));
    app.add_option("--block-size", o.block_bytes, "bytes per command (4096, 256KiB ...)")
        ->transform(CLI::AsSizeValue(false))
        ->check(CLI::Range(512, 16 << 20));
    app.add_option("--reads", o.read_percent, "percent of commands that read")->check(CLI::Range(0, 100));
    app.add_option("--pattern", pattern, "random or sequential")->check(CLI::IsMember({"random", "sequential"}));
    app.add_option("--seconds", o.seconds, "how long to run")->check(CLI::Range(0.0, 1e6));
    app.add_option("--warmup", o.warmup_seconds, "seconds to run before counting")->check(CLI::Range(0.0, 1e6));
    app.add_option("--operations", o.operations, "stop after this many commands (0: by time only)");
    app.add_option("--first", o.first_byte, "first byte of the LUN to use")->transform(CLI::AsSizeValue(false));
    app.add_option("--span", o.span_bytes, "bytes of the LUN to use (0: all)")->transform(CLI::AsSizeValue(false));
    app.add_option("--fua", o.fua_percent, "percent of writes with FUA")->check(CLI::Range(0, 100));
    app.add_option("--seed", o.seed, "seed of addresses and of the read/write choice");
}

void add_session(CLI::App& app, Options& o) {
    app.add_option("--initiator", o.initiator, "initiator name");
    app.add_option("--reconnect", o.reconnect_seconds, "log in again for up to this many seconds after a loss");
    app.add_option("--give-up", o.give_up_seconds, "end the run when a command has no answer for so many seconds");
    app.add_flag("--header-digest", o.header_digest, "ask for CRC32C header digests");
}

}  // namespace

std::optional<Options> parse_options(int argc, char** argv, int& exit_code) {
    CLI::App app{"Load generator and checker for an iSCSI LUN."};
    Options options;
    std::string pattern = "random";
    app.add_option("url", options.url,
                   "iscsi://host:port/target-name/lun; for CHAP set LIBISCSI_CHAP_USERNAME and LIBISCSI_CHAP_PASSWORD")
        ->required();
    add_workload(app, options, pattern);
    add_session(app, options);
    auto* ledger = app.add_option("--verify", options.ledger,
                                  "stamp all writes, check all reads; FILE keeps what was acknowledged between runs");
    app.add_flag("--check", options.check, "only read back everything the --verify file knows")->needs(ledger);
    app.add_flag("--json", options.json, "print the result as one JSON object");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        const bool asked_for_help = error.get_exit_code() == 0;
        app.exit(error);
        exit_code = asked_for_help ? 0 : static_cast<int>(ExitCode::kUsage);
        return std::nullopt;
    }
    options.sequential = pattern == "sequential";
    return options;
}

}  // namespace gemel::loadgen
