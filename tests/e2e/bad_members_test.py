#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Wrong, foreign, stale, cut or damaged members: a clear error or a degraded start, and nothing on them changes."""
import os
import shutil
import unittest

from e2e_case import MIB, EndToEnd, array, iqn, target, volume
from lab.daemon import Refused, wait_until
from lab.initiator import Load, load, write_image

TEXT = array() + volume() + target()


class BadMembers(EndToEnd):
    def setUp(self):
        super().setUp()
        self.ledger = self.folder / "ledger"

    def filled(self, name="n", ledger=None):
        """A stopped node with data in its array."""
        node = self.start(self.daemon(name, TEXT))
        kept = ledger or self.ledger
        self.assert_good(load(node.url(iqn("t")), seconds=1, depth=8, reads=0, block_size="16KiB", verify=kept))
        self.assertEqual(node.stop(), 0)
        return node

    def member(self, node, number):
        return node.state_dir / f"r5{number}"

    def check(self, node):
        self.assert_good(load(node.url(iqn("t")), verify=self.ledger, check=True, block_size="64KiB", depth=4))

    def refused(self, node, *words):
        """Starting must fail with these words, and change no member."""
        before = self.hashes(node.state_dir)
        with self.assertRaises(Refused) as refused:
            node.start()
        for word in words:
            self.assertRegex(refused.exception.text.lower(), word)
        self.assertEqual(self.hashes(node.state_dir), before, "a refused start changes nothing")

    def array_state(self, node):
        return node.ask("status")["arrays"][0]

    def test_members_that_hold_a_file_system_are_not_formatted(self):
        node = self.daemon("n", TEXT)
        image = self.folder / "image"
        with open(image, "wb") as f:
            f.truncate(40 * MIB)
        os.system(f"mkfs.ext4 -q -F {image}")
        image.rename(self.member(node, 3))
        self.refused(node, r"r53", r"ext4|file ?system|not blank")

    def test_members_that_are_too_small_are_refused(self):
        node = self.daemon("n", array(size="1MiB") + volume() + target())
        with self.assertRaises(Refused) as refused:
            node.start()
        self.assertRegex(refused.exception.text.lower(), r"small|has \d+ free|at least")

    def test_a_volume_larger_than_its_array_is_refused(self):
        node = self.daemon("n", array() + volume(size="10GiB") + target())
        with self.assertRaises(Refused) as refused:
            node.start()
        self.assertRegex(refused.exception.text.lower(), r"vol")

    def test_a_member_of_another_array_is_refused_and_neither_changes(self):
        mine = self.filled()
        other = self.filled("other", self.folder / "other-ledger")
        self.member(mine, 2).rename(self.folder / "kept")
        self.member(other, 2).rename(self.member(mine, 2))
        self.refused(mine, r"r52", r"another array|foreign|belongs")
        self.member(mine, 2).rename(self.member(other, 2))
        (self.folder / "kept").rename(self.member(mine, 2))
        self.start(mine)
        self.check(mine)

    def test_members_in_the_wrong_order_are_refused_or_served_right(self):
        node = self.filled()
        self.member(node, 0).rename(self.folder / "kept")
        self.member(node, 1).rename(self.member(node, 0))
        (self.folder / "kept").rename(self.member(node, 1))
        try:
            self.start(node)
        except Refused as refused:
            self.assertRegex(refused.text, r"r5[01]")
            return
        self.check(node)

    def test_a_missing_member_leaves_the_array_degraded_and_readable(self):
        node = self.filled()
        self.member(node, 1).rename(self.folder / "kept")
        self.start(node)
        self.assertEqual(self.array_state(node)["state"], "degraded")
        self.check(node)

    def test_two_missing_members_are_refused(self):
        node = self.filled()
        for number in (1, 4):
            self.member(node, number).rename(self.folder / f"kept{number}")
        self.refused(node, r"r5", r"missing")

    def test_a_member_that_returns_gets_what_it_missed(self):
        node = self.filled()
        self.member(node, 1).rename(self.folder / "kept")
        self.start(node)
        self.assert_good(load(node.url(iqn("t")), seconds=1, depth=8, reads=0, verify=self.ledger))
        self.assertEqual(node.stop(), 0)
        (self.folder / "kept").rename(self.member(node, 1))
        self.start(node)
        wait_until(lambda: self.array_state(node)["state"] == "optimal", 60, "it has caught up")
        self.assertIn("it came back and gets what it missed", node.gemel("events").stdout)
        self.check(node)

    def test_an_older_copy_of_a_member_never_returns_old_data(self):
        text = array() + "checksums = false\n" + volume() + target()
        node = self.start(self.daemon("n", text))
        self.assert_good(load(node.url(iqn("t")), seconds=1, depth=8, reads=0, block_size="16KiB", verify=self.ledger))
        self.assertEqual(node.stop(), 0)
        shutil.copyfile(self.member(node, 2), self.folder / "older")
        self.start(node)
        self.assert_good(load(node.url(iqn("t")), seconds=1, depth=8, reads=0, block_size="16KiB", verify=self.ledger))
        self.assertEqual(node.stop(), 0)
        shutil.copyfile(self.folder / "older", self.member(node, 2))
        before = self.hashes(node.state_dir)["r52"]
        self.start(node)
        self.assertEqual([m["state"] for m in self.array_state(node)["members"]].count("in-sync"), 4)
        self.assertEqual(self.array_state(node)["members"][2]["state"], "stale")
        self.check(node)
        self.assertEqual(self.hashes(node.state_dir)["r52"], before)
        self.assertRegex(node.log_text(), r"older copy.*gemel array rebuild r5 2")
        node.gemel("array", "rebuild", "r5", "2", "--wait", "--timeout", "60")
        self.assertEqual(self.array_state(node)["state"], "optimal")
        self.check(node)

    def test_a_member_whose_superblocks_are_damaged_counts_as_missing(self):
        node = self.filled()
        with open(self.member(node, 3), "r+b") as f:
            f.seek(-8 * MIB, os.SEEK_END)
            f.write(os.urandom(8 * MIB))
        before = self.hashes(node.state_dir)["r53"]
        self.start(node)
        self.assertEqual(self.array_state(node)["state"], "degraded")
        self.check(node)
        self.assertEqual(node.stop(), 0)
        self.assertEqual(self.hashes(node.state_dir)["r53"], before)
        self.assertRegex(node.log_text().lower(), r"r53|member 3")

    def test_a_truncated_member_counts_as_missing_or_is_refused(self):
        node = self.filled()
        os.truncate(self.member(node, 0), 20 * MIB)
        before = self.hashes(node.state_dir)
        try:
            self.start(node)
        except Refused as refused:
            self.assertRegex(refused.text, r"r50")
            self.assertEqual(self.hashes(node.state_dir), before)
            return
        self.assertEqual(self.array_state(node)["state"], "degraded")
        self.check(node)

    def test_damage_on_all_members_is_refused(self):
        node = self.filled()
        for number in range(5):
            with open(self.member(node, number), "r+b") as f:
                f.seek(-8 * MIB, os.SEEK_END)
                f.write(os.urandom(8 * MIB))
        self.refused(node, r"r5")

    def test_a_formatted_array_is_never_formatted_again(self):
        node = self.filled()
        for number in range(5):
            path = self.member(node, number)
            os.truncate(path, 0)
            os.truncate(path, 40 * MIB)
        self.refused(node, r"r5")

    def test_a_second_daemon_waits_and_then_says_who_holds_the_members(self):
        node = self.start(self.daemon("n", TEXT))
        running = Load(node.url(iqn("t")), seconds=14, depth=4, reads=50, verify=self.ledger)
        second = self.daemon("second", TEXT.replace('path = "', f'path = "{node.state_dir}/'))
        with self.assertRaises(Refused) as refused:
            second.start()
        self.assertRegex(refused.exception.text, rf"{node.pid}|gemeld")
        same_state = self.daemon("n", TEXT)
        with self.assertRaises(Refused):
            same_state.start()
        self.assert_good(running.result())

    def test_a_restart_waits_for_the_old_daemon_to_go(self):
        node = self.filled()
        self.start(node)
        image = self.folder / "image"
        image.write_bytes(os.urandom(MIB))
        write_image(image, node.url(iqn("t")))
        old = node.process
        old.terminate()
        self.start(node)
        self.assertEqual(old.wait(30), 0)


if __name__ == "__main__":
    unittest.main()
