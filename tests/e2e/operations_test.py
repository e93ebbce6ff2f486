#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Operations on a pair through gemel: what is refused changes nothing and says why; what is done sends only changes."""
import json
import re
import unittest

from e2e_case import MIB, Pair
from lab.daemon import run, wait_until
from lab.initiator import Load, load

NOT_FOUND, REFUSED, BUSY, NEEDS_FORCE, NO_DAEMON = 3, 4, 5, 6, 7


class UnknownNames(Pair):
    def test_every_verb_on_an_unknown_volume_says_not_found_and_disturbs_nothing(self):
        self.establish()
        running = Load(self.url(self.alpha), seconds=4, depth=4, reads=50, verify=self.folder / "ledger")
        before = self.alpha.ask("volume", "list")
        for verb in (("mirror", "establish", "nope", "--peer", "beta"), ("mirror", "sever", "nope"),
                     ("mirror", "re-establish", "nope"), ("mirror", "resize", "nope", "1GiB"),
                     ("mirror", "status", "nope"), ("promote", "nope")):
            with self.subTest(verb=verb):
                done = self.alpha.gemel(*verb, check=False)
                self.assertEqual(done.returncode, NOT_FOUND, done.stderr)
                self.assertIn("nope", done.stderr)
                answer = json.loads(self.alpha.gemel(*verb, "--json", check=False).stdout)
                self.assertEqual(answer["error"]["errc"], "not_found")
        self.assertEqual([v["bytes"] for v in self.alpha.ask("volume", "list")], [v["bytes"] for v in before])
        self.assert_good(running.result())

    def test_an_unknown_peer_and_a_daemon_that_is_not_there_have_their_own_codes(self):
        self.start(self.alpha)
        done = self.alpha.gemel("mirror", "establish", "vol", "--peer", "gamma", check=False)
        self.assertEqual(done.returncode, NOT_FOUND, done.stderr)
        self.assertIn("gamma", done.stderr)
        self.assertEqual(self.beta.gemel("status", check=False).returncode, NO_DAEMON)


class OtherSize(Pair):
    def volume_size(self, node):
        return "64MiB" if node == "alpha" else "48MiB"

    def test_a_peer_volume_of_another_size_is_refused_and_neither_side_changes(self):
        self.start(self.alpha)
        self.start(self.beta)
        running = Load(self.url(self.alpha), seconds=4, depth=4, reads=50, verify=self.folder / "ledger")

        def answered():
            done = self.alpha.gemel("mirror", "establish", "vol", "--peer", "beta", check=False)
            return done if done.returncode != BUSY else None
        done = wait_until(answered, 15, "the nodes have met")
        self.assertEqual(done.returncode, REFUSED, done.stderr)
        self.assertRegex(done.stderr.lower(), "size|sectors|bytes")
        for node in (self.alpha, self.beta):
            self.assertEqual(node.pair("vol")["state"], "unpaired")
        self.assert_good(running.result())
        self.assert_good(load(self.url(self.beta), operations=50, depth=4, reads=50))


class Operations(Pair):
    def events(self, node):
        return [json.loads(line) for line in node.gemel("events", "--json").stdout.splitlines()]

    def test_severed_then_re_established_sends_only_changed_tracks(self):
        self.establish()
        ledger, url = self.folder / "ledger", self.url(self.alpha)
        self.assert_good(load(url, operations=200, reads=0, depth=8, verify=ledger))
        self.alpha.gemel("mirror", "sever", "vol")
        self.assertEqual(self.alpha.pair("vol")["state"], "severed")
        self.assert_good(load(url, operations=20, reads=0, depth=4, verify=ledger, span="4MiB"))
        changed = self.alpha.pair("vol")["dirty_bytes"]
        self.assertGreater(changed, 0)
        self.assertLessEqual(changed, 5 * MIB)
        sent_before = self.alpha.pair("vol")["resync_bytes_sent"]
        self.alpha.gemel("mirror", "re-establish", "vol", "--wait", seconds=60)
        self.wait_mirrored(self.alpha)
        sent = self.alpha.pair("vol")["resync_bytes_sent"] - sent_before
        self.assertGreater(sent, 0)
        self.assertLessEqual(sent, changed)
        self.beta.gemel("promote", "vol")
        self.wait_mirrored(self.beta)
        self.assert_good(load(self.url(self.beta), verify=ledger, check=True, block_size="64KiB", depth=4))

    def test_the_secondary_refuses_hosts_and_shows_the_same_identity(self):
        self.establish()
        self.assertEqual(load(self.url(self.beta), operations=1, give_up=5)["exit_code"], 4)
        seen = [self.identity(self.alpha)]
        self.beta.gemel("promote", "vol")
        self.wait_mirrored(self.beta)
        seen.append(self.identity(self.beta))
        self.assertTrue(seen[0])
        self.assertEqual(seen[0], seen[1])

    def test_a_node_that_is_started_without_replication_keeps_its_pair(self):
        self.establish()
        ledger = self.folder / "ledger"
        self.assert_good(load(self.url(self.alpha), operations=200, reads=0, depth=8, verify=ledger))
        written = {}
        for node in (self.alpha, self.beta):
            self.assertEqual(node.stop(), 0)
            written[node] = node.config.read_text()
            node.config.write_text(re.sub(r"\[replication\](.|\n)*?(?=\[\[array)", "", written[node]))
        self.start(self.beta)
        self.assertEqual(self.beta.pair("vol")["role"], "secondary")
        self.assertEqual(load(self.url(self.beta), operations=1, give_up=5)["exit_code"], 4)
        self.assertIn("replication-not-configured", {e["id"] for e in self.events(self.beta)})
        self.assertEqual(self.beta.stop(), 0)
        for node in (self.alpha, self.beta):
            node.config.write_text(written[node])
            self.start(node)
        self.wait_mirrored(self.alpha)
        self.assert_good(load(self.url(self.alpha), verify=ledger, check=True, block_size="64KiB", depth=4))

    def identity(self, node):
        """The first designator of VPD page 83, which names the logical unit."""
        page = run(["iscsi-inq", "-e", "1", "-c", "131", self.url(node)]).stdout
        return re.findall(r"Designator:.*", page)[:1]

    def test_resize_grows_both_sides_and_the_host_uses_the_new_end(self):
        self.establish()
        ledger = self.folder / "ledger"
        self.assert_good(load(self.url(self.alpha), operations=200, reads=0, depth=8, verify=ledger))
        self.alpha.gemel("mirror", "resize", "vol", "80MiB")
        wait_until(lambda: self.beta.pair("vol")["bytes"] == 80 * MIB, 15, "the peer has the new size")
        self.wait_mirrored(self.alpha)
        result = load(self.url(self.alpha), operations=300, reads=0, depth=8, verify=ledger)
        self.assert_good(result)
        self.assertEqual(result["capacity_bytes"], 80 * MIB)
        refused = self.alpha.gemel("mirror", "resize", "vol", "64MiB", check=False)
        self.assertEqual(refused.returncode, NEEDS_FORCE, refused.stderr)
        too_large = self.alpha.gemel("mirror", "resize", "vol", "100GiB", check=False)
        self.assertNotEqual(too_large.returncode, 0)
        for node in (self.alpha, self.beta):
            self.assertEqual(node.pair("vol")["bytes"], 80 * MIB)
        self.beta.gemel("promote", "vol")
        self.wait_mirrored(self.beta)
        self.assert_good(load(self.url(self.beta), verify=ledger, check=True, block_size="64KiB", depth=4))

    def test_both_written_alone_is_a_split_brain_that_an_operator_ends(self):
        self.establish()
        self.cut()
        wait_until(lambda: not self.beta.pair("vol")["connected"], 15, "beta sees the cut")
        self.beta.gemel("promote", "vol", "--force")
        mine, theirs = self.folder / "mine", self.folder / "theirs"
        self.assert_good(load(self.url(self.alpha), operations=50, reads=0, depth=4, verify=mine))
        self.assert_good(load(self.url(self.beta), operations=50, reads=0, depth=4, verify=theirs))
        self.heal()
        wait_until(lambda: self.alpha.pair("vol")["state"] == "split-brain", 30, "the split brain is seen")
        self.assertTrue([e for e in self.events(self.alpha) if "split" in e["id"]])
        refused = self.alpha.gemel("mirror", "re-establish", "vol", check=False)
        self.assertNotEqual(refused.returncode, 0, "a direction must be named")
        self.alpha.gemel("mirror", "re-establish", "vol", "--from", "alpha", "--force", "--wait", seconds=60)
        self.wait_mirrored(self.alpha)
        self.assert_good(load(self.url(self.alpha), verify=mine, check=True, block_size="64KiB", depth=4))

    def test_events_have_sequence_numbers_without_gaps(self):
        self.establish()
        self.alpha.gemel("mirror", "sever", "vol")
        rows = self.events(self.alpha)
        numbers = [e["sequence"] for e in rows]
        self.assertEqual(numbers, list(range(numbers[0], numbers[0] + len(numbers))))
        for event in rows:
            self.assertTrue(event["id"] and event["subject"] and event["severity"])
            self.assertTrue(event["severity"] == "info" or event["cause"], event)


if __name__ == "__main__":
    unittest.main()
