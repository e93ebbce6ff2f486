#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Scrub: blocks changed behind the daemon's back, kill -9 in the middle, wrong orders."""
import os
import unittest

from e2e_case import EndToEnd, array, iqn, target, volume
from lab.daemon import wait_until
from lab.initiator import load


class Scrub(EndToEnd):
    def filled(self, level, members, checksums=True):
        self.ledger = self.folder / "ledger"
        text = array(name="a", level=level, members=members)
        text += f"checksums = {str(checksums).lower()}\n" + volume(of="a", size="48MiB") + target()
        node = self.start(self.daemon("n", text))
        self.assert_good(load(node.url(iqn("t")), seconds=1, depth=8, reads=0, block_size="16KiB", verify=self.ledger))
        wait_until(lambda: self.show(node)["resync"] is None, 60, "the first resync has ended")
        return node

    def check(self, node):
        self.assert_good(load(node.url(iqn("t")), verify=self.ledger, check=True, block_size="64KiB", depth=4))

    def show(self, node):
        return node.ask("array", "show", "a")[0]

    def spoil(self, node, member, at):
        with open(node.state_dir / f"a{member}", "r+b") as file:
            file.seek(at)
            old = file.read(1)
            file.seek(at)
            file.write(bytes([old[0] ^ 0x40]))
            file.flush()
            os.fsync(file.fileno())

    def test_spoiled_blocks_are_told_with_their_addresses_and_repaired(self):
        node = self.filled("6", 5, checksums=False)
        self.assertEqual(node.gemel("array", "scrub", "a", "--wait").returncode, 0)
        self.assertEqual(self.show(node)["last_scrub"]["mismatched"], 0)
        for member in range(5):
            self.spoil(node, member, (16 << 10) * (2 + member))
        done = node.gemel("array", "scrub", "a", "--wait", check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("5 mismatched", done.stdout)
        last = self.show(node)["last_scrub"]
        self.assertEqual([(f["member"], f["member_sector"], f["sectors"]) for f in last["faults"]],
                         [(m, 32 * (2 + m), 8) for m in range(5)])
        self.assertRegex(node.gemel("events").stdout, r"scrub-mismatch: array a: .* at sector 64 of member 0")
        node.gemel("array", "scrub", "a", "--repair", "--wait", "--timeout", "60")
        self.assertEqual(self.show(node)["last_scrub"]["repaired"], 5)
        self.assertEqual(node.gemel("array", "scrub", "a", "--wait").returncode, 0)
        self.check(node)

    def test_blocks_that_contradict_their_checksums_are_repaired_by_any_scrub(self):
        node = self.filled("5", 4)
        for member in range(4):
            self.spoil(node, member, (16 << 10) * (2 + member))
        self.assertEqual(node.gemel("array", "scrub", "a", "--wait", "--timeout", "60").returncode, 0)
        last = self.show(node)["last_scrub"]
        self.assertEqual((last["mismatched"], last["repaired"]), (4, 4))
        self.check(node)

    def test_a_scrub_is_a_job_and_survives_kill_9_but_not_its_cancelling(self):
        node = self.filled("5", 4)
        node.gemel("job", "limit", "a", "8MiB", "--kind", "scrub")
        node.gemel("array", "scrub", "a", "--repair")
        job = node.ask("job", "list")[0]
        self.assertEqual((job["kind"], job["member"], job["limit"]), ("scrub", None, 8 << 20))
        wait_until(lambda: self.show(node)["scrub"]["done_bytes"] > 60 << 20, 60, "a part is done")
        node.gemel("job", "pause", "a")
        self.assertEqual(node.ask("job", "list")[0]["state"], "paused")
        node.gemel("job", "resume", "a", "--kind", "scrub")
        node.kill()
        self.start(node)
        self.assertRegex(node.gemel("events").stdout, r"the scrub of an earlier start goes on at [1-9]\d? %")
        # A limit does not survive, so it may end at any moment; what is cancelled is one that cannot.
        wait_until(lambda: self.show(node)["last_scrub"]["state"] == "finished", 60, "it has gone on to its end")
        node.gemel("job", "limit", "a", "1MiB", "--kind", "scrub")
        node.gemel("array", "scrub", "a", "--repair")
        self.assertEqual(self.show(node)["last_scrub"]["state"], "running")
        node.gemel("job", "cancel", "a")
        wait_until(lambda: not node.ask("job", "list"), 10, "it has ended")
        self.assertEqual(self.show(node)["last_scrub"]["state"], "cancelled")
        self.assertEqual(node.stop(), 0)
        self.start(node)
        self.assertIsNone(self.show(node)["last_scrub"])
        self.check(node)

    def test_wrong_orders_are_errors(self):
        node = self.filled("5", 4)
        for code, words, order in (
                (3, "no array 'r9'", ("array", "scrub", "r9")),
                (3, "has no job", ("job", "pause", "a")),
                (3, "has no scrub running", ("job", "pause", "a", "--kind", "scrub")),
                (2, "no kind of job: expected one of rebuild, scrub, replace",
                 ("job", "limit", "a", "1MiB", "--kind", "polish"))):
            done = node.gemel(*order, check=False)
            self.assertEqual(done.returncode, code, (order, done.stderr))
            self.assertIn(words, done.stderr)
        node.gemel("job", "limit", "a", "1MiB", "--kind", "scrub")
        node.gemel("array", "scrub", "a")
        done = node.gemel("array", "scrub", "a", check=False)
        self.assertEqual(done.returncode, 5)
        self.assertIn("being scrubbed", done.stderr)
        node.gemel("job", "limit", "a", "1MiB", "--kind", "rebuild")
        node.gemel("array", "fail", "a", "0")
        wait_until(lambda: node.ask("job", "list")[0]["state"] == "waiting", 10, "it waits for the member")
        node.gemel("array", "rebuild", "a", "0")
        done = node.gemel("job", "cancel", "a", check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("more than one job", done.stderr)
        node.gemel("job", "cancel", "a", "--kind", "scrub")
        wait_until(lambda: [j["kind"] for j in node.ask("job", "list")] == ["rebuild"], 10, "the rebuild goes on")


if __name__ == "__main__":
    unittest.main()
