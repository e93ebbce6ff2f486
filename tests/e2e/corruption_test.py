#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Silent corruption of members: found by checksums, never returned, repaired where there is redundancy, and told."""
import random
import time
import unittest

from e2e_case import MIB, EndToEnd, array, iqn, target, volume
from lab.daemon import wait_until
from lab.initiator import load


class Corruption(EndToEnd):
    def overwrite(self, node, member, at, count):
        """Garbage over a part of a member, as a firmware that lies or a stray dd leaves it."""
        with open(self.folder / "n" / member, "r+b") as file:
            file.seek(at)
            file.write(random.Random(at).randbytes(count))

    def test_garbage_on_a_member_is_neither_returned_nor_kept(self):
        for level, members in (("5", 4), ("6", 5), ("1", 2), ("10", 4)):
            with self.subTest(level=level):
                name = "a" + level
                text = array(name=name, level=level, members=members) + volume(of=name, size="24MiB") + target()
                node = self.start(self.daemon("n", text))
                url, ledger = node.url(iqn("t")), self.folder / f"ledger{level}"
                self.assert_good(load(url, seconds=1, depth=8, reads=0, block_size="16KiB", verify=ledger))
                wait_until(lambda: node.ask("array", "show", name)[0]["resync"] is None, 60, "the resync has ended")
                time.sleep(5)  # without writes: the journal lets go of everything
                self.assertEqual(node.stop(), 0)
                self.overwrite(node, name + "0", 1 * MIB, 3 * MIB)
                self.start(node)
                self.assert_good(load(url, verify=ledger, check=True, block_size="64KiB", depth=4))
                shown = node.ask("array", "show", name)[0]
                self.assertGreater(shown["checksums"]["found"], 0)
                self.assertEqual(shown["state"], "optimal")
                self.assertIn("did not match", node.gemel("events").stdout)
                self.assertEqual(node.stop(), 0)

    def test_garbage_on_the_only_copy_is_an_error(self):
        text = array(name="s", level="0", members=2) + volume(of="s", size="24MiB") + target()
        node = self.start(self.daemon("n", text))
        url, ledger = node.url(iqn("t")), self.folder / "ledger"
        self.assert_good(load(url, seconds=1, depth=8, reads=0, block_size="16KiB", verify=ledger))
        time.sleep(5)  # without writes: the journal lets go of everything
        self.assertEqual(node.stop(), 0)
        self.start(node)
        self.assert_good(load(url, verify=ledger, check=True, block_size="64KiB", depth=4))
        self.assertEqual(node.stop(), 0)
        self.overwrite(node, "s0", 1 * MIB, 3 * MIB)
        self.start(node)
        result = load(url, verify=ledger, check=True, block_size="64KiB", depth=4)
        self.assertEqual((result["exit_code"], result["verify"]["wrong_sectors"]), (1, 0), result["problems"])
        self.assertGreater(node.ask("array", "show", "s")[0]["checksums"]["found"], 0)
        self.assertIn("block-mismatched", node.gemel("events").stdout)


if __name__ == "__main__":
    unittest.main()
