// SPDX-License-Identifier: Apache-2.0
// gemeld: reads the command line and the configuration, runs the daemon until a signal, and ends with a code that says
// why.
// Threads: main; the main processor runs on it.
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <optional>
#include <sstream>

#include "target/config/value_syntax.hpp"
#include "target/daemon/daemon.hpp"
#include "target/daemon/secrets_file.hpp"
#include "target/runtime/descriptor_limit.hpp"

namespace gemel {
namespace {

constexpr std::size_t kEventsKept = 4096;
constexpr Duration kWaitForOldDaemon = std::chrono::seconds(10);
constexpr std::uint64_t kOwnDescriptors = 256;  ///< admin clients, links to peers, logs, and a reserve
constexpr std::uint64_t kDescriptorsPerProcessor = 8;

struct CommandLine {
    std::string config;
    std::string state_dir = "/var/lib/gemel";
    std::string portal;
    std::vector<std::string> force;
    bool check_only = false;
};

int exit_with(DaemonExit code, const std::string& why) {
    std::fprintf(stderr, "gemeld: %s\n", why.c_str());
    return static_cast<int>(code);
}

std::int64_t wall_clock_ns() {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    return static_cast<std::int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

/// The exit code if the process is to end now.
std::optional<int> read_command_line(int argc, char** argv, CommandLine& to) {
    CLI::App app{"gemeld: an iSCSI target whose volumes lie on RAID arrays and mirror themselves to a peer"};
    std::string check;
    CLI::Option* config = app.add_option("--config", to.config, "configuration file (TOML)");
    app.add_option("--state-dir", to.state_dir, "where the daemon keeps its lock, records and admin socket")
        ->capture_default_str();
    app.add_option("--portal", to.portal,
                   "listen on this host:port instead of the portals of the configuration; port "
                   "0 lets the system choose");
    app.add_option("--force", to.force,
                   "start this array although it is degraded after an unclean stop; data that "
                   "was being written then may be wrong");
    app.add_option("--check-config", check, "only report the mistakes of this file")->excludes(config);
    app.set_version_flag("--version", std::string("gemeld ") + GEMEL_VERSION);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        return app.exit(e) == 0 ? static_cast<int>(DaemonExit::kOk) : static_cast<int>(DaemonExit::kUsage);
    }
    to.check_only = !check.empty();
    to.config = to.check_only ? check : to.config;
    if (to.config.empty()) {
        return exit_with(DaemonExit::kUsage, "--config FILE is needed; see --help");
    }
    return std::nullopt;
}

/// Arrays that `gemel array create` has made; one that the file names itself counts as the file says.
std::string with_created(std::string text, const std::vector<CreatedArray>& created) {
    const std::vector<std::string> named = config::array_names(text);
    for (const CreatedArray& array : created) {
        if (std::ranges::find(named, array.name) == named.end()) {
            text += "\n" + array.definition;
        }
    }
    return text;
}

/// Prints what is wrong and returns nothing, or the configuration with the command line applied.
std::optional<config::Config> read_config(const CommandLine& given) {
    std::ifstream file(given.config, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    if (!file) {
        std::fprintf(stderr, "gemeld: cannot read the configuration %s: %s\n", given.config.c_str(),
                     std::strerror(errno));
        return std::nullopt;
    }
    const auto created = created_arrays(given.state_dir);
    if (!created) {
        std::fprintf(stderr, "gemeld: %s\n", created.error().message.c_str());
        return std::nullopt;
    }
    const std::string all = with_created(text.str(), *created);
    if (const auto address = config::parse_address(given.portal); !given.portal.empty() && !address) {
        std::fprintf(stderr, "gemeld: --portal: %s\n", address.error().message.c_str());
        return std::nullopt;
    }
    const std::vector<config::LevelRule> rules = level_rules();
    auto parsed = config::parse(all, rules);
    if (!parsed) {
        std::fputs(config::render(parsed.error(), given.config).c_str(), stderr);
        return std::nullopt;
    }
    if (!given.portal.empty()) {
        parsed->portals = {{given.portal, {}}};
        if (const auto mistakes = config::check(*parsed, rules); !mistakes.empty()) {
            std::fputs(config::render(mistakes, "--portal " + given.portal).c_str(), stderr);
            return std::nullopt;
        }
    }
    return *std::move(parsed);
}

/// Tells the service manager, if there is one (sd_notify protocol: one datagram to NOTIFY_SOCKET).
void notify_service_manager(std::string_view state) {
    const char* path = std::getenv("NOTIFY_SOCKET");
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path == nullptr || (path[0] != '/' && path[0] != '@') || std::strlen(path) >= sizeof address.sun_path) {
        return;
    }
    std::memcpy(address.sun_path, path, std::strlen(path));
    if (path[0] == '@') {
        address.sun_path[0] = '\0';
    }
    const int descriptor = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0) {
        return;
    }
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + std::strlen(path));
    (void)::sendto(descriptor, state.data(), state.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&address),
                   size);
    ::close(descriptor);
}

/// SIGTERM and SIGINT set an event on the main processor; a second one ends the process at once.
class StopSignals {
  public:
    explicit StopSignals(Processor& main) : signals_(main.io_context(), SIGTERM, SIGINT) { arm(); }
    auto wait() { return requested_.wait(); }
    [[nodiscard]] bool requested() const { return requested_.is_set(); }
    void stop() { signals_.cancel(); }

  private:
    void arm() {
        signals_.async_wait([this](const boost::system::error_code& error, int number) {
            if (error) {
                return;
            }
            if (requested_.is_set()) {
                std::_Exit(128 + number);
            }
            requested_.set();
            arm();
        });
    }
    boost::asio::signal_set signals_;
    Event requested_;
};

/// SIGHUP has the secrets file read anew; before the daemon lives it is ignored.
class ReloadSignal {
  public:
    ReloadSignal(Processor& main, admin::EventRing& events, Daemon& daemon)
        : signals_(main.io_context(), SIGHUP), events_(events), daemon_(daemon) {
        arm();
    }
    void stop() { signals_.cancel(); }

  private:
    void arm() {
        signals_.async_wait([this](const boost::system::error_code& error, int /*number*/) {
            if (error) {
                return;
            }
            if (const Result<void> done = daemon_.reload_secrets(); !done) {
                events_.emit({Severity::kWarning, "reload-refused", "the secrets file", done.error().message,
                              "correct it, then: gemel reload"});
            }
            arm();
        });
    }
    boost::asio::signal_set signals_;
    admin::EventRing& events_;
    Daemon& daemon_;
};

/// The daemon's life. Everything that it refers to outlives it.
Task<void> live(Runtime& runtime, admin::EventRing& events, Daemon& daemon, StopSignals& signals, int& exit_code) {
    ReloadSignal reload(runtime.processors().main(), events, daemon);
    events.attach(runtime.processors().main());
    const auto started = co_await daemon.start();
    if (started) {
        std::printf("gemeld: %s\n", daemon.summary().c_str());
        std::fflush(stdout);
        notify_service_manager("READY=1");
        co_await signals.wait();
        notify_service_manager("STOPPING=1");
    } else if (!signals.requested()) {
        exit_code = exit_with(started.error().exit, started.error().error.message);
    }
    reload.stop();
    co_await daemon.stop();
    co_await events.detach();
    signals.stop();
    runtime.processors().stop_main();
}

std::uint64_t needed_descriptors(const config::Config& config) {
    const iscsi::ServerLimits limits;
    std::uint64_t members = 0;
    for (const config::Array& array : config.arrays) {
        members += array.members.size();
    }
    return limits.sessions + limits.discovery_sessions + limits.unauthenticated + config.portals.size() + members +
           kOwnDescriptors + kDescriptorsPerProcessor * (config.daemon.io_processors + 1);
}

int run_daemon(const CommandLine& given, config::Config config, config::Secrets secrets, StateDirectory& state) {
    admin::EventRing events(kEventsKept, wall_clock_ns, admin::log_to_stderr);
    RuntimeOptions options;
    options.io_processors = config.daemon.io_processors;
    options.memory_bytes = config.daemon.memory_bytes;
    raise_descriptor_limit(needed_descriptors(config), events);
    auto runtime = Runtime::create(options, events);
    if (!runtime) {
        return exit_with(DaemonExit::kResources, runtime.error().message);
    }
    ProcessorPool& processors = (*runtime)->processors();
    if (const auto running = processors.start(); !running) {
        return exit_with(DaemonExit::kResources, running.error().message);
    }
    int exit_code = static_cast<int>(DaemonExit::kOk);
    Daemon daemon(
        **runtime, events, state,
        {std::move(config), {given.force.begin(), given.force.end()}, GEMEL_VERSION, std::move(secrets), given.config});
    StopSignals signals(processors.main());
    start_on(processors.main(), live(**runtime, events, daemon, signals, exit_code));
    if (const auto ran = processors.run_main(); !ran) {
        return exit_with(DaemonExit::kResources, ran.error().message);
    }
    if (daemon.holds_memory()) {
        std::fflush(nullptr);
        std::_Exit(exit_code);
    }
    processors.stop_and_join();
    return exit_code;
}

int run(int argc, char** argv) {
    CommandLine given;
    if (const auto code = read_command_line(argc, argv, given)) {
        return *code;
    }
    auto config = read_config(given);
    if (!config) {
        return static_cast<int>(DaemonExit::kConfig);
    }
    if (given.check_only) {
        std::printf("%s: no mistakes\n", given.config.c_str());
        return static_cast<int>(DaemonExit::kOk);
    }
    for (const std::string& array : given.force) {
        if (std::ranges::find(config->arrays, array, &config::Array::name) == config->arrays.end()) {
            return exit_with(DaemonExit::kUsage,
                             fmt::format("--force {}: no array of that name is in {}", array, given.config));
        }
    }
    std::signal(SIGPIPE, SIG_IGN);
    std::signal(SIGHUP, SIG_IGN);  // until ReloadSignal
    ::umask(0077);
    auto state = StateDirectory::open(given.state_dir, kWaitForOldDaemon);
    if (!state) {
        return exit_with(DaemonExit::kState, state.error().message);
    }
    auto secrets = read_secrets(*config, given.config, state->path());
    if (!secrets) {
        std::fputs(secrets.error().c_str(), stderr);
        return static_cast<int>(DaemonExit::kConfig);
    }
    return run_daemon(given, *std::move(config), *std::move(secrets), *state);
}

}  // namespace
}  // namespace gemel

int main(int argc, char** argv) {
    return gemel::run(argc, argv);
}
