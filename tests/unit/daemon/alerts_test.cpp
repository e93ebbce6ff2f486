// SPDX-License-Identifier: Apache-2.0
// What alerts tell, in which form, and what they do when they cannot.
#include "target/daemon/alerts.hpp"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>

#include "tests/support/real_runtime.hpp"

namespace gemel {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using namespace std::chrono_literals;

std::int64_t a_time() {
    return 1'800'000'000'000'000'000;
}

admin::StoredEvent event(std::uint64_t sequence, std::string subject) {
    return {sequence, a_time(), Severity::kError, "member-failed", std::move(subject), "I/O error", "replace it"};
}

TEST(AlertDelivery, AProgramGetsOneJsonDocument) {
    config::Alert alert;
    alert.exec = {"/bin/notify", "--fast"};
    const Alerts::Delivery d = Alerts::make_delivery(alert, "alpha", 3, {event(7, "array a"), event(9, "array b")});
    EXPECT_EQ(d.arguments, alert.exec);
    const json::value told = json::parse(d.input);
    EXPECT_EQ(told.at("node").as_string(), "alpha");
    EXPECT_EQ(told.at("lost").to_number<int>(), 3);
    EXPECT_EQ(told.at("events").at(1).at("sequence").to_number<int>(), 9);
    EXPECT_EQ(told.at("events").at(1).at("action").as_string(), "replace it");
}

TEST(AlertDelivery, AWebAddressIsNoArgumentAndNothingInItLeavesItsQuotes) {
    config::Alert alert;
    alert.kind = config::AlertKind::kWebhook;
    alert.to = "https://example.org/\"\\secret";
    const Alerts::Delivery d = Alerts::make_delivery(alert, "alpha", 0, {event(7, "a \"quoted\" name")});
    EXPECT_EQ(d.arguments, (std::vector<std::string>{"curl", "-q", "--config", "-"}));
    EXPECT_NE(d.input.find("url = \"https://example.org/\\\"\\\\secret\"\n"), std::string::npos) << d.input;
    EXPECT_NE(d.input.find(R"(\"subject\":\"a \\\"quoted\\\" name\")"), std::string::npos) << d.input;
}

TEST(AlertDelivery, MailSaysTheWorstInItsSubjectAndWhatToDo) {
    config::Alert alert;
    alert.kind = config::AlertKind::kMail;
    alert.to = "ops@example.org";
    admin::StoredEvent mild = event(1, "array a");
    mild.severity = Severity::kWarning;
    const Alerts::Delivery d = Alerts::make_delivery(alert, "alpha", 2, {mild, event(2, "array b")});
    EXPECT_EQ(d.arguments, (std::vector<std::string>{"/usr/sbin/sendmail", "-i", "-t"}));
    EXPECT_TRUE(
        d.input.starts_with("To: ops@example.org\nSubject: [gemel alpha] error: member-failed: array b and 1 more\n"))
        << d.input;
    EXPECT_NE(d.input.find("2 events before these were lost."), std::string::npos);
    EXPECT_NE(d.input.find("  What to do: replace it\n"), std::string::npos);
}

/// Alerts on a real processor, with programs that write into a folder.
class AlertsTest : public ::testing::Test {
  protected:
    AlertsTest() : environment_(runtime_.environment()), ring_(64, &a_time, nullptr) {
        std::string folder = (fs::temp_directory_path() / "gemel-alerts-XXXXXX").string();
        CHECK(::mkdtemp(folder.data()) != nullptr);
        folder_ = folder;
        ring_.attach(runtime_.io(0));
    }
    ~AlertsTest() override {
        if (alerts_) {
            stop();
        }
        run(ring_.detach());
        fs::remove_all(folder_);
    }

    /// Runs the task to its end.
    void run(Task<void> task) {
        EXPECT_TRUE(runtime_.run([](Task<void> t) -> Task<bool> {
            co_await std::move(t);
            co_return true;
        }(std::move(task))));
    }
    void start(const std::string& script) {
        config::Alert alert;
        alert.name = "test";
        alert.exec = {"/bin/sh", "-c", "cd " + folder_.string() + " && " + script};
        alert.interval = 100ms;
        alerts_ = std::make_unique<Alerts>(environment_, ring_, "alpha", std::vector{alert});
        run([](Alerts& a) -> Task<void> {
            a.start();
            co_return;
        }(*alerts_));
    }
    void stop() {
        run(alerts_->stop());
        alerts_.reset();
    }
    void emit(Severity severity, std::string subject) { ring_.emit({severity, "test", std::move(subject), "", ""}); }
    void wait_for(const std::function<bool()>& condition) {
        EXPECT_TRUE(runtime_.run([](Clock& clock, const std::function<bool()>& met) -> Task<bool> {
            for (int i = 0; i < 2000 && !met(); ++i) {
                co_await sleep_for(clock, 10ms);
            }
            co_return met();
        }(environment_.clock, condition)));
    }
    /// The subjects told so far, in order.
    std::string told() {
        std::ifstream in(folder_ / "told");
        std::string out;
        for (std::string line; std::getline(in, line) && !in.eof();) {  // whole lines: the last one may be on its way
            const json::value document = json::parse(line);
            for (const json::value& e : document.at("events").as_array()) {
                out += std::string(e.at("subject").as_string()) + " ";
            }
        }
        return out;
    }

    test::RealRuntime runtime_{1};
    Environment environment_;
    admin::EventRing ring_;
    fs::path folder_;
    std::unique_ptr<Alerts> alerts_;
};

TEST_F(AlertsTest, TellEachEventOnceInOrderFromTheFirstOn) {
    emit(Severity::kWarning, "before");
    start("cat >> told");
    emit(Severity::kInfo, "too mild");
    emit(Severity::kError, "bad");
    wait_for([&] { return told().ends_with("bad "); });
    emit(Severity::kWarning, "later");
    wait_for([&] { return told().ends_with("later "); });
    EXPECT_EQ(told(), "before bad later ");
}

TEST_F(AlertsTest, ADeliveryIsShortEnoughForCurlWhateverIsInTheTexts) {
    start("wc -c >> sizes && echo '{\"events\":[]}' >> told");
    for (int i = 0; i < 40; ++i) {
        ring_.emit({Severity::kError, "test", std::string(1024, '"'), std::string(1024, '"'), std::string(1024, '"')});
    }
    const auto sizes = [&] {
        std::ifstream in(folder_ / "sizes");
        std::vector<std::size_t> out;
        for (std::size_t n = 0; in >> n;) {
            out.push_back(n);
        }
        return out;
    };
    wait_for([&] { return sizes().size() == 8; });
    EXPECT_LT(std::ranges::max(sizes()), 50000U) << "quoted once more it is twice as long, and curl takes 100 KiB";
}

TEST_F(AlertsTest, WhatTheRingDroppedIsToldWithTheNextThatIsWanted) {
    for (int i = 0; i < 100; ++i) {
        emit(Severity::kInfo, "too mild");
    }
    emit(Severity::kError, "bad");
    start("cat >> told");
    wait_for([&] { return told() == "bad "; });
    std::ifstream in(folder_ / "told");
    std::string line;
    ASSERT_TRUE(std::getline(in, line));
    EXPECT_EQ(json::parse(line).at("lost").to_number<int>(), 37);  // of 101 the ring keeps 64
}

TEST_F(AlertsTest, OneThatFailsIsAnEventAndIsToldAgainWhatItMissed) {
    start("if [ -e fixed ]; then cat >> told; else exit 9; fi");
    emit(Severity::kError, "first");
    wait_for([&] { return ring_.last() >= 2; });
    ASSERT_GE(ring_.last(), 2U);
    const admin::StoredEvent failure = ring_.since(2, 1).front();
    EXPECT_EQ(failure.id, "alert-failed");
    EXPECT_EQ(failure.cause, "/bin/sh ended with code 9");
    std::ofstream(folder_ / "fixed").put('x');
    emit(Severity::kError, "second");
    wait_for([&] { return told() == "first second "; });
    stop();
    EXPECT_EQ(told(), "first second ");
}

TEST_F(AlertsTest, StopEndsAProgramThatDoesNotEnd) {
    start("touch begun; sleep 600");
    emit(Severity::kError, "bad");
    wait_for([&] { return fs::exists(folder_ / "begun"); });
    const auto began = std::chrono::steady_clock::now();
    stop();
    EXPECT_LT(std::chrono::steady_clock::now() - began, Alerts::kMostTime - 5s);
}

}  // namespace
}  // namespace gemel
