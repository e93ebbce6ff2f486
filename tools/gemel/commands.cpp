// SPDX-License-Identifier: Apache-2.0
#include "tools/gemel/commands.hpp"

#include <unistd.h>

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <chrono>

#include "target/config/value_syntax.hpp"
#include "tools/gemel/client.hpp"
#include "tools/gemel/render.hpp"
#include "tools/gemel/verb_call.hpp"

namespace gemel::cli {

namespace json = boost::json;

namespace {

Outcome<json::array> pairs(AdminClient& client, const std::string& volume) {
    auto answer = client.call("mirror.status", volume.empty() ? json::object{} : json::object{{"volume", volume}});
    if (!answer) {
        return std::unexpected(std::move(answer).error());
    }
    if (!answer->is_array()) {
        return std::unexpected(Failure{ExitCode::kInternal, "internal", "the daemon's answer is not a list of pairs"});
    }
    return std::move(answer->get_array());
}

/// Whether waiting for this pair is over: mirrored, or why it never will be without an operator.
Outcome<bool> settled(const json::value& pair) {
    const std::string state = text_of(pair, "state");
    if (state == "mirrored" && flag_of(pair, "connected") && !flag_of(pair, "resync.running")) {
        return true;
    }
    if (state == "split-brain" || state == "need-full" || state == "severed" || state == "unpaired") {
        return std::unexpected(Failure{ExitCode::kRefused, "refused",
                                       "volume '" + text_of(pair, "volume") + "' is " + state + ": " +
                                           text_of(pair, "reason", "it does not become mirrored by itself")});
    }
    return false;
}

/// Of all pairs, or of the one that is named: over when all are mirrored or one of them never will be.
ExitCode wait_for_mirrored(const Invocation& given) {
    const auto counts = [&given](const json::value& pair) {
        return !given.volume.empty() || text_of(pair, "state") != "unpaired";
    };
    const auto runs = [counts](const json::array& list) {
        bool all = true;
        for (const json::value& pair : list) {
            const auto done = settled(pair);
            if (!done && counts(pair)) {
                return false;
            }
            all &= done.value_or(true);
        }
        return !all;
    };
    const auto progress = [](const json::array& list) {
        std::string out;
        for (const json::value& pair : list) {
            out = out.empty() && pair.is_object() ? render_progress(pair.get_object()) : out;
        }
        return out;
    };
    const auto end = [&given, counts](const json::array& list) {
        for (const json::value& pair : list) {
            if (const auto done = settled(pair); !done && counts(pair)) {
                return complain(given, done.error());
            }
        }
        print(given.json ? json::serialize(list) + "\n" : render_pairs(list));
        return ExitCode::kOk;
    };
    return wait_while(given, "mirror.status",
                      given.volume.empty() ? json::object{} : json::object{{"volume", given.volume}},
                      {progress, runs, end, "see 'gemel mirror status' for the reason"});
}

ExitCode watch_pairs(const Invocation& given) {
    auto client = AdminClient::connect(given.socket);
    if (!client) {
        return complain(given, client.error());
    }
    const bool on_terminal = ::isatty(STDOUT_FILENO) == 1;
    std::string last;
    for (;;) {
        const auto list = pairs(*client, given.volume);
        if (!list) {
            return complain(given, list.error());
        }
        const std::string text = given.json ? json::serialize(*list) + "\n" : render_pairs(*list);
        if (text != last) {
            print((on_terminal && !given.json ? "\033[H\033[2J" : "") + text);
            last = text;
        }
        pause_for(std::chrono::seconds(1));
    }
}

ExitCode then_wait(const Invocation& given, ExitCode so_far) {
    return so_far == ExitCode::kOk && given.wait ? wait_for_mirrored(given) : so_far;
}

/// kInternal when something is left that is different or unreadable.
ExitCode wait_for_verify(const Invocation& given) {
    const auto runs = [](const json::array& list) {
        const std::string state = text_of(list.at(0), "verify.state");
        return state == "running" || state == "paused" || state == "waiting";
    };
    const auto end = [&given](const json::array& list) {
        const json::value& pair = list.at(0);
        if (const std::string state = text_of(pair, "verify.state"); state != "done") {
            return complain(given,
                            {ExitCode::kRefused, "refused",
                             "the verify of volume '" + given.volume + "' has " +
                                 (state == "failed" ? "failed: " + text_of(pair, "verify.why") : "been cancelled")});
        }
        print(given.json ? json::serialize(list) + "\n" : render_last_verify(pair));
        const bool good = number_of(pair, "verify.bad_blocks") == number_of(pair, "verify.repaired_blocks");
        return good ? ExitCode::kOk : ExitCode::kInternal;
    };
    return wait_while(given, "mirror.status", {{"volume", given.volume}},
                      {[](const json::array& list) { return render_verify(list.at(0)); }, runs, end,
                       "it goes on, see 'gemel mirror status'"});
}

}  // namespace

ExitCode show_status(const Invocation& given) {
    return show(given, "status", render_status);
}

ExitCode list_volumes(const Invocation& given) {
    return show(given, "volume.list", render_volumes);
}

ExitCode list_sessions(const Invocation& given) {
    return show(given, "session.list", render_sessions);
}

ExitCode show_events(const Invocation& given) {
    auto client = AdminClient::connect(given.socket);
    if (!client) {
        return complain(given, client.error());
    }
    const auto line = [&](const json::value& e) { print((given.json ? json::serialize(e) : render_event(e)) + "\n"); };
    const auto kept = client->call("events", {{"since", given.since}, {"follow", given.follow}});
    if (!kept) {
        return complain(given, kept.error());
    }
    if (const json::object* answer = kept->if_object()) {
        const json::value* events = answer->if_contains("events");
        for (const json::value& e : events != nullptr && events->is_array() ? events->get_array() : json::array{}) {
            line(e);
        }
    }
    while (given.follow) {
        const auto event = client->next_event();
        if (!event) {
            return complain(given, event.error());
        }
        line(*event);
    }
    return ExitCode::kOk;
}

ExitCode mirror_status(const Invocation& given) {
    if (given.wait) {
        return wait_for_mirrored(given);
    }
    if (given.watch) {
        return watch_pairs(given);
    }
    auto client = AdminClient::connect(given.socket);
    if (!client) {
        return complain(given, client.error());
    }
    const auto list = pairs(*client, given.volume);
    if (!list) {
        return complain(given, list.error());
    }
    if (given.json) {
        print(json::serialize(*list) + "\n");
    } else if (!given.volume.empty() && list->size() == 1 && list->front().is_object()) {
        print(render_pair_details(list->front().get_object()));
    } else {
        print(render_pairs(*list));
    }
    return ExitCode::kOk;
}

ExitCode mirror_establish(const Invocation& given) {
    json::object params{{"volume", given.volume}, {"peer", given.peer}, {"overwrite", given.overwrite}};
    if (!given.peer_volume.empty()) {
        params["peer_volume"] = given.peer_volume;
    }
    return then_wait(given, change(given, "mirror.establish", std::move(params),
                                   "volume '" + given.volume + "' is paired with node '" + given.peer +
                                       "'; the first copy is on its way, see 'gemel mirror status'"));
}

ExitCode mirror_sever(const Invocation& given) {
    return change(given, "mirror.sever", {{"volume", given.volume}, {"force", given.force}},
                  "the mirror of volume '" + given.volume + "' is severed; changed tracks are recorded");
}

ExitCode mirror_re_establish(const Invocation& given) {
    json::object params{{"volume", given.volume}, {"force", given.force}};
    if (!given.from.empty()) {
        params["from"] = given.from;
    }
    return then_wait(given, change(given, "mirror.re_establish", std::move(params),
                                   "volume '" + given.volume + "' is mirrored again; changed tracks are being sent"));
}

namespace {
ExitCode resize_by(const Invocation& given, std::string_view method) {
    const auto bytes = config::parse_size(given.size);
    if (!bytes) {
        return complain(given, {ExitCode::kUsage, "invalid_argument", bytes.error().message});
    }
    return change(given, method, {{"volume", given.volume}, {"bytes", *bytes}, {"shrink", given.shrink}},
                  "volume '" + given.volume + "' has " + config::format_size(*bytes) + " now; its hosts are told");
}
}  // namespace

ExitCode mirror_resize(const Invocation& given) {
    return resize_by(given, "mirror.resize");
}

ExitCode mirror_verify(const Invocation& given) {
    const std::string order = !given.order.empty() ? given.order : given.repair ? "repair" : "check";
    json::object params{{"volume", given.volume}, {"order", order}};
    if (!given.wait) {
        return change(given, "mirror.verify", std::move(params),
                      !given.order.empty() ? "the verify of volume '" + given.volume + "' was told to " + order
                                           : "the copies of volume '" + given.volume +
                                                 "' are being compared; see 'gemel mirror status'");
    }
    const auto answer = call(given, "mirror.verify", std::move(params));
    return answer ? wait_for_verify(given) : complain(given, answer.error());
}

ExitCode resize_volume(const Invocation& given) {
    return resize_by(given, "volume.resize");
}

ExitCode promote(const Invocation& given) {
    return change(given, "promote", {{"volume", given.volume}, {"force", given.force}},
                  "this node is the primary of volume '" + given.volume + "' now");
}

ExitCode reload(const Invocation& given) {
    return change(given, "reload", {}, "the secrets file is read anew; sessions stay");
}

}  // namespace gemel::cli
