// SPDX-License-Identifier: Apache-2.0
// gemel: looks at a running gemeld and manages its mirrors, over the admin socket.
#include <CLI/CLI.hpp>
#include <cstdlib>
#include <string>

#include "tools/gemel/commands.hpp"

namespace gemel::cli {
namespace {

constexpr std::string_view kDefaultSocket = "/var/lib/gemel/admin.sock";

using Verb = ExitCode (*)(const Invocation&);

/// A verb with --json; its function is remembered in `chosen` when it is on the command line.
CLI::App& add_verb(CLI::App& parent, const std::string& name, const std::string& meaning, Verb verb, Invocation& given,
                   Verb& chosen) {
    CLI::App* app = parent.add_subcommand(name, meaning);
    app->add_flag("--json", given.json, "answer as JSON");
    app->callback([verb, &chosen] { chosen = verb; });
    return *app;
}

void add_volume(CLI::App& app, Invocation& given) {
    app.add_option("VOLUME", given.volume, "name of the volume on this node")->required();
}

void add_size(CLI::App& app, Invocation& given) {
    add_volume(app, given);
    app.add_option("SIZE", given.size, "new size, such as 2GiB")->required();
    app.add_flag("--shrink", given.shrink, "the new size may be smaller; what lies beyond it is lost");
}

void add_wait(CLI::App& app, Invocation& given) {
    app.add_flag("--wait", given.wait, "wait until it is mirrored, with a progress line");
    app.add_option("--timeout", given.timeout_seconds, "seconds that --wait waits at most");
}

void add_mirror(CLI::App& root, Invocation& given, Verb& chosen) {
    CLI::App& mirror = *root.add_subcommand("mirror", "pairs of volumes on two nodes");
    mirror.require_subcommand(1);
    CLI::App& status = add_verb(mirror, "status", "state and progress of pairs", mirror_status, given, chosen);
    status.add_option("VOLUME", given.volume, "only this volume, in detail");
    status.add_flag("--watch", given.watch, "again whenever it changes, until interrupted");
    add_wait(status, given);

    CLI::App& establish = add_verb(mirror, "establish", "pair a volume with one of a peer and copy all of it there",
                                   mirror_establish, given, chosen);
    add_volume(establish, given);
    establish.add_option("--peer", given.peer, "name of the peer node")->required();
    establish.add_option("--peer-volume", given.peer_volume, "name of the volume there (default: the same)");
    establish.add_flag("--overwrite", given.overwrite, "go on although the peer's volume is not blank");
    add_wait(establish, given);

    CLI::App& sever = add_verb(mirror, "sever", "end the mirroring; changes are tracked", mirror_sever, given, chosen);
    add_volume(sever, given);
    sever.add_flag("--force", given.force, "although the peer cannot be reached");

    CLI::App& again = add_verb(mirror, "re-establish", "mirror again, sending only changed tracks", mirror_re_establish,
                               given, chosen);
    add_volume(again, given);
    again.add_option("--from", given.from, "node whose data is kept, where both were written");
    again.add_flag("--force", given.force, "full copy where no common base is known");
    add_wait(again, given);

    add_size(add_verb(mirror, "resize", "change the size on both sides", mirror_resize, given, chosen), given);
}

void add_array(CLI::App& app, Invocation& given) {
    app.add_option("ARRAY", given.array, "name of the array")->required();
}

void add_member(CLI::App& app, Invocation& given) {
    add_array(app, given);
    app.add_option("MEMBER", given.member, "number of its place, from 0")->required();
}

void add_job(CLI::App& app, Invocation& given) {
    add_array(app, given);
    app.add_option("--kind", given.kind, "rebuild, replace or scrub, where more may be meant");
}

void add_wait(CLI::App& app, Invocation& given, const std::string& until) {
    app.add_flag("--wait", given.wait, "wait until " + until + ", with a progress line");
    app.add_option("--timeout", given.timeout_seconds, "seconds that --wait waits at most");
}

void add_arrays(CLI::App& root, Invocation& given, Verb& chosen) {
    CLI::App& array = *root.add_subcommand("array", "RAID arrays and their members");
    array.require_subcommand(1);
    add_verb(array, "list", "arrays with level, state and size", list_arrays, given, chosen);
    add_array(add_verb(array, "show", "one array, its members and spares", show_array, given, chosen), given);
    CLI::App& fail = add_verb(array, "fail", "mark a member failed", fail_member, given, chosen);
    add_member(fail, given);
    fail.add_flag("--force", given.force, "although parity is not right yet everywhere; what it holds there is lost");
    CLI::App& rebuild =
        add_verb(array, "rebuild", "rebuild a member that is not in sync", rebuild_member, given, chosen);
    add_member(rebuild, given);
    rebuild.add_option("--with", given.with, "spare that takes the place (default: the device that is there)");
    add_wait(rebuild, given, "it is in sync");
    CLI::App& scrub = add_verb(array, "scrub", "compare every stripe with its redundancy", scrub_array, given, chosen);
    add_array(scrub, given);
    scrub.add_flag("--repair", given.repair, "make right what contradicts its redundancy");
    add_wait(scrub, given, "it has ended");
    CLI::App& replace =
        add_verb(array, "replace", "exchange a member that works for a spare", replace_member, given, chosen);
    add_member(replace, given);
    replace.add_option("--with", given.with, "spare that takes the place (default: the first one)");
    add_wait(replace, given, "the spare has the place");
    CLI::App& add = add_verb(array, "add", "give an array a spare, also for later starts", add_spare, given, chosen);
    add_array(add, given);
    add.add_option("DEVICE", given.device, "a blank device or file; PATH:SIZE makes a file")->required();
    CLI::App& remove =
        add_verb(array, "remove", "take away a spare that was added and is not used", remove_spare, given, chosen);
    add_array(remove, given);
    remove.add_option("DEVICE", given.device, "path of the spare")->required();
    CLI::App& create = add_verb(array, "create", "make an array on blank members", create_array, given, chosen);
    add_array(create, given);
    create.add_option("--level", given.level, "single, linear, 0, 1, 5, 6 or 10")->required();
    create.add_option("--strip", given.strip, "4KiB to 1MiB (default: 64KiB)");
    create.add_option("--member", given.members, "a device or file; PATH:SIZE makes a file. One for each member")
        ->required();
    create.add_option("--spare", given.spares, "a hot spare, as a member");
    create.add_option("--volume", given.volumes, "NAME:SIZE, or NAME for all that is left (default: one as the array)");
    add_array(add_verb(array, "grow", "use what the members' devices were extended by", grow_array, given, chosen),
              given);

    CLI::App& job = *root.add_subcommand("job", "background work of arrays");
    job.require_subcommand(1);
    add_verb(job, "list", "running jobs with progress, rate and time left", list_jobs, given, chosen);
    add_job(add_verb(job, "pause", "pause the array's job", pause_job, given, chosen), given);
    add_job(add_verb(job, "resume", "go on with the array's job", resume_job, given, chosen), given);
    add_job(add_verb(job, "cancel", "end the array's job", cancel_job, given, chosen), given);
    CLI::App& limit = add_verb(job, "limit", "bound the rate of the array's jobs", limit_job, given, chosen);
    add_job(limit, given);
    limit.add_option("RATE", given.size, "bytes per second, such as 50MiB, or none")->required();
}

void add_verbs(CLI::App& root, Invocation& given, Verb& chosen) {
    add_verb(root, "status", "the node, its arrays, volumes and targets", show_status, given, chosen);
    CLI::App& volume = *root.add_subcommand("volume", "volumes of this node");
    volume.require_subcommand(1);
    add_verb(volume, "list", "volumes with size, mirror and LUNs", list_volumes, given, chosen);
    add_size(add_verb(volume, "resize", "change the size; hosts go on", resize_volume, given, chosen), given);
    CLI::App& session = *root.add_subcommand("session", "iSCSI sessions");
    session.require_subcommand(1);
    add_verb(session, "list", "who is logged in", list_sessions, given, chosen);
    CLI::App& stats =
        add_verb(root, "stats", "what hosts do: operations, bytes, latencies, errors", show_statistics, given, chosen);
    stats.add_option("--interval", given.interval_seconds, "seconds from one answer to the next, until interrupted")
        ->check(CLI::Range(1, 86400));
    add_arrays(root, given, chosen);
    add_mirror(root, given, chosen);
    CLI::App& promoted = add_verb(root, "promote", "make this node the primary of a volume", promote, given, chosen);
    add_volume(promoted, given);
    promoted.add_flag("--force", given.force,
                      "without contact to the peer; if that one still serves hosts, both will be written");
    CLI::App& events = add_verb(root, "events", "what happened, oldest first", show_events, given, chosen);
    events.add_option("--since", given.since, "first sequence number to show");
    events.add_flag("--follow", given.follow, "go on with what happens from now on, until interrupted");
}

std::string socket_path(const std::string& socket, const std::string& state_dir) {
    if (!socket.empty()) {
        return socket;
    }
    if (!state_dir.empty()) {
        return state_dir + "/admin.sock";
    }
    const char* from_environment = std::getenv("GEMEL_SOCKET");
    return from_environment != nullptr ? from_environment : std::string(kDefaultSocket);
}

int run(int argc, char** argv) {
    CLI::App root{"gemel: looks at a running gemeld and manages its mirrors"};
    root.require_subcommand(1);
    root.fallthrough();
    Invocation given;
    Verb chosen = nullptr;
    std::string socket;
    std::string state_dir;
    root.add_option("--socket", socket,
                    "admin socket of gemeld (default: GEMEL_SOCKET, then " + std::string(kDefaultSocket) + ")");
    root.add_option("--state-dir", state_dir, "state directory of gemeld; its socket is admin.sock there");
    root.set_version_flag("--version", std::string("gemel ") + GEMEL_VERSION);
    add_verbs(root, given, chosen);
    try {
        root.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        return root.exit(e) == 0 ? static_cast<int>(ExitCode::kOk) : static_cast<int>(ExitCode::kUsage);
    }
    given.socket = socket_path(socket, state_dir);
    return static_cast<int>(chosen(given));
}

}  // namespace
}  // namespace gemel::cli

int main(int argc, char** argv) {
    return gemel::cli::run(argc, argv);
}
