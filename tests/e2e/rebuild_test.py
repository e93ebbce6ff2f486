#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Members that fail: a hot spare, kill -9 in the middle of its rebuild, rebuild onto the same device, wrong orders."""
import fcntl
import time
import unittest

from e2e_case import EndToEnd, array, iqn, target, volume
from lab.daemon import binaries, run, wait_until
from lab.initiator import load

MEMBERS = array(members=4)
SPARE = MEMBERS + 'spares = [{kind = "file", path = "spare", size = "40MiB"}]\n'


def locked(path):
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


class Rebuild(EndToEnd):
    def filled(self, text):
        self.ledger = self.folder / "ledger"
        node = self.start(self.daemon("n", text + volume() + target()))
        self.assert_good(load(node.url(iqn("t")), seconds=1, depth=8, reads=0, block_size="16KiB", verify=self.ledger))
        return node

    def check(self, node):
        self.assert_good(load(node.url(iqn("t")), verify=self.ledger, check=True, block_size="64KiB", depth=4))

    def show(self, node):
        return node.ask("array", "show", "r5")[0]

    def state(self, node, member):
        return self.show(node)["members"][member]["state"]

    def test_a_spare_takes_over_and_its_rebuild_survives_kill_9(self):
        node = self.filled(SPARE)
        wait_until(lambda: self.show(node)["resync"] is None, 60, "the first resync has ended")
        time.sleep(5)  # without writes: the array is clean, so that it starts degraded after a kill
        node.gemel("job", "limit", "r5", "4MiB")
        node.gemel("array", "fail", "r5", "1")
        wait_until(lambda: node.ask("job", "list"), 10, "the rebuild is a job")
        self.assertEqual(self.state(node, 1), "rebuilding")
        wait_until(lambda: node.ask("job", "list")[0]["done_bytes"] > 16 << 20, 30, "a part is done")
        node.gemel("job", "pause", "r5")
        self.assertEqual(node.ask("job", "list")[0]["state"], "paused")
        node.gemel("job", "resume", "r5")
        node.kill()
        self.start(node)
        self.assertRegex(node.gemel("events").stdout, r"the rebuild of an earlier start goes on at [1-9]\d? %")
        wait_until(lambda: self.state(node, 1) == "in-sync", 60, "the rebuild has ended")
        self.check(node)
        self.assertEqual(node.stop(), 0)
        self.start(node)
        self.assertEqual(self.show(node)["state"], "optimal")
        self.assertTrue(self.show(node)["members"][1]["name"].endswith("/spare"))
        self.check(node)

    def test_a_member_that_works_is_replaced_and_kill_9_in_the_middle_costs_no_redundancy(self):
        node = self.filled(SPARE)
        wait_until(lambda: self.show(node)["resync"] is None, 60, "the first resync has ended")
        node.gemel("job", "limit", "r5", "4MiB")
        node.gemel("array", "replace", "r5", "1")
        self.assertEqual(self.show(node)["state"], "optimal")
        self.assertTrue(self.show(node)["members"][1]["replaced_with"].endswith("/spare"))
        self.assertIn("is replaced with", node.gemel("array", "show", "r5").stdout)
        wait_until(lambda: node.ask("job", "list")[0]["done_bytes"] > 12 << 20, 30, "a part is done")
        self.assertEqual(node.ask("job", "list")[0]["kind"], "replace")
        node.kill()
        self.start(node)
        wait_until(lambda: self.show(node)["members"][1]["name"].endswith("/spare"), 60, "it has the place")
        self.assertEqual(self.show(node)["state"], "optimal")
        self.check(node)
        done = node.gemel("array", "replace", "r5", "0", check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("has no spare", done.stderr)
        self.assertEqual(node.stop(), 0)
        self.start(node)
        self.assertEqual(self.show(node)["state"], "optimal")
        self.check(node)

    def test_a_replace_is_waited_for(self):
        node = self.filled(SPARE)
        done = node.gemel("array", "replace", "r5", "2", "--with", "spare", "--wait", "--timeout", "60")
        self.assertIn("/spare now", done.stdout)
        self.check(node)

    def test_a_spare_that_is_added_takes_over_and_is_known_after_a_restart(self):
        node = self.filled(MEMBERS)
        extra, more = self.folder / "extra", self.folder / "more"
        wait_until(lambda: self.show(node)["resync"] is None, 60, "the first resync has ended")
        node.gemel("array", "add", "r5", f"{extra}:40MiB")
        self.assertEqual(self.show(node)["spares"], [str(extra)])
        used = self.folder / "used"
        used.write_bytes(b"data" * (16 << 20))
        for code, words, order in (
                (4, "already", ("add", "r5", extra)),
                (4, "already", ("add", "r5", f"{node.state_dir}/r50")),
                (4, "not blank", ("add", "r5", used)),
                (4, "needs", ("add", "r5", f"{more}:1MiB")),
                (3, "there is no", ("add", "r5", more)),
                (3, "no array", ("add", "r9", f"{more}:40MiB")),
                (3, "has no spare", ("remove", "r5", more)),
                (4, "configuration names", ("remove", "r5", f"{node.state_dir}/r50"))):
            done = node.gemel("array", *order, check=False)
            self.assertEqual(done.returncode, code, (order, done.stderr))
            self.assertIn(words, done.stderr)
        self.assertFalse(more.exists(), "what was made for a spare that was refused")
        node.kill()
        self.start(node)
        self.assertIn("spare-not-in-config", node.gemel("events").stdout)
        self.assertEqual(self.show(node)["spares"], [str(extra)])
        wait_until(lambda: self.show(node)["resync"] is None, 60, "what the kill cut short is right again")
        node.gemel("array", "fail", "r5", "1")
        wait_until(lambda: self.state(node, 1) == "in-sync", 60, "the spare has the place")
        self.assertEqual(self.show(node)["members"][1]["name"], str(extra))
        done = node.gemel("array", "remove", "r5", extra, check=False)
        self.assertEqual(done.returncode, 4, done.stderr)
        self.assertIn("is a member", done.stderr)
        node.gemel("array", "add", "r5", f"{more}:40MiB")
        self.assertTrue(locked(more))
        node.gemel("array", "remove", "r5", more)
        self.assertFalse(locked(more))
        self.assertEqual(self.show(node)["spares"], [])
        self.assertEqual(node.stop(), 0)
        self.start(node)
        self.assertEqual((self.show(node)["state"], self.show(node)["spares"]), ("optimal", []))
        self.assertEqual(self.show(node)["members"][1]["name"], str(extra))
        third = self.folder / "third"
        wait_until(lambda: self.show(node)["resync"] is None, 60, "all is right")
        node.gemel("array", "add", "r5", f"{third}:40MiB")
        node.gemel("array", "fail", "r5", "1")
        wait_until(lambda: self.state(node, 1) == "in-sync", 60, "the next spare has the place")
        self.assertTrue(locked(extra), "it might be taken back")
        node.gemel("array", "remove", "r5", extra)
        self.assertFalse(locked(extra), "one that had a place may be pulled, too")
        self.check(node)

    def test_a_failed_member_is_rebuilt_onto_itself(self):
        node = self.filled(MEMBERS)
        wait_until(lambda: self.show(node)["resync"] is None, 60, "the first resync has ended")
        node.gemel("array", "fail", "r5", "2")
        self.assertEqual(self.show(node)["state"], "degraded")
        node.gemel("array", "rebuild", "r5", "2", "--wait", "--timeout", "60")
        self.assertEqual(self.show(node)["state"], "optimal")
        self.check(node)

    def test_a_member_that_was_away_gets_only_what_it_missed(self):
        node = self.filled(array(members=4, size="256MiB"))
        wait_until(lambda: self.show(node)["resync"] is None, 120, "the first resync has ended")
        time.sleep(5)  # without writes nothing is under way, so nothing but what follows is missed
        node.gemel("array", "fail", "r5", "2")
        self.assert_good(load(node.url(iqn("t")), seconds=1, depth=4, reads=0, block_size="4KiB", span="2MiB",
                              verify=self.ledger))
        missed = self.show(node)["members"][2]["missed_bytes"]
        self.assertGreater(missed, 0)
        self.assertLess(missed, 32 << 20)
        self.assertIn(", missed ", node.gemel("array", "show", "r5").stdout)
        members = [m["name"] for m in self.show(node)["members"]]
        time.sleep(5)  # what is under way when a degraded array is killed cannot be known
        node.kill()
        inspected = run([str(binaries() / "gemel-inspect"), *members], check=False).stdout
        self.assertIn("missed extents of lost members", inspected)
        self.assertIn("member 2 gets", inspected)
        self.start(node)
        wait_until(lambda: self.state(node, 2) == "in-sync", 60, "it has caught up by itself")
        events = node.gemel("events").stdout
        self.assertRegex(events, r"it came back and gets what it missed: [0-9]+ bytes")
        self.check(node)
        self.assertIsNone(self.show(node)["members"][2]["missed_bytes"])

    def test_wrong_orders_are_errors_and_change_nothing(self):
        node = self.filled(MEMBERS)
        wait_until(lambda: self.show(node)["resync"] is None, 60, "the first resync has ended")
        for code, words, order in (
                (3, "no array 'r9'", ("array", "show", "r9")),
                (3, "no array 'r9'", ("job", "pause", "r9")),
                (3, "has no job", ("job", "pause", "r5")),
                (2, "members 0 to 3", ("array", "fail", "r5", "4")),
                (4, "is in sync", ("array", "rebuild", "r5", "1")),
                (3, "no member or spare", ("array", "rebuild", "r5", "1", "--with", "/dev/null")),
                (2, "expected", ("job", "limit", "r5", "fast"))):
            done = node.gemel(*order, check=False)
            self.assertEqual(done.returncode, code, (order, done.stderr))
            self.assertIn(words, done.stderr)
        self.assertEqual(self.show(node)["state"], "optimal")
        node.gemel("array", "fail", "r5", "0")
        done = node.gemel("array", "fail", "r5", "1", check=False)
        self.assertEqual(done.returncode, 4)
        self.assertIn("cannot be spared", done.stderr)
        self.assertEqual(self.state(node, 1), "in-sync")


if __name__ == "__main__":
    unittest.main()
