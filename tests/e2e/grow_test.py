#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Members that are extended: the array and its volume grow while hosts work; arrays made by gemel array create."""
import os
import threading
import unittest

from e2e_case import MIB, EndToEnd, array, iqn, target, volume
from lab.daemon import wait_until
from lab.initiator import load

MEMBERS = array(members=4)
TEXT = MEMBERS + volume() + target()


class Grow(EndToEnd):
    def show(self, node, name="r5"):
        return node.ask("array", "show", name)[0]

    def settle(self, node, name="r5"):
        wait_until(lambda: self.show(node, name)["resync"] is None, 90, "the resync has ended")

    def filled(self, seconds=1):
        self.ledger = self.folder / "ledger"
        node = self.start(self.daemon("n", TEXT))
        self.settle(node)
        self.write(node, seconds)
        return node

    def write(self, node, seconds=1):
        self.assert_good(load(node.url(iqn("t")), seconds=seconds, depth=8, reads=0, block_size="16KiB",
                              verify=self.ledger))

    def check(self, node):
        self.assert_good(load(node.url(iqn("t")), verify=self.ledger, check=True, block_size="64KiB", depth=4))

    def extend(self, node, to, members=range(4)):
        for i in members:
            os.truncate(node.state_dir / f"r5{i}", to * MIB)

    def test_the_array_and_its_volume_grow_while_a_host_writes(self):
        node = self.filled()
        before = self.show(node)["bytes"]
        self.extend(node, 72, members=(0, 1, 3))
        done = node.gemel("array", "grow", "r5", check=False)
        self.assertEqual(done.returncode, 4, done.stderr)
        self.assertIn("r52) has 41943040 bytes", done.stderr)
        self.assertIn("75497472", done.stderr)
        self.extend(node, 72)
        host = threading.Thread(target=lambda: self.write(node, seconds=4))
        host.start()
        done = node.gemel("array", "grow", "r5")
        self.assertIn("free for volumes", done.stdout)
        self.assertGreater(self.show(node)["bytes"], before + 80 * MIB)
        node.gemel("volume", "resize", "vol", "150MiB")
        host.join()
        self.check(node)
        node.kill()
        self.start(node)
        self.assertEqual(self.show(node)["state"], "optimal")
        self.check(node)
        self.ledger = self.folder / "larger"  # of the whole volume, as it is now
        self.write(node, seconds=2)
        self.settle(node)
        node.gemel("array", "scrub", "r5", "--wait", "--timeout", "90")
        node.gemel("array", "fail", "r5", "1")
        self.check(node)
        node.gemel("array", "rebuild", "r5", "1", "--wait", "--timeout", "90")
        self.check(node)
        self.assertEqual(node.stop(), 0)
        self.start(node)
        self.check(node)

    def test_members_extended_while_the_daemon_was_down_are_found(self):
        node = self.filled()
        node.kill()
        self.extend(node, 48)
        self.start(node)
        self.assertEqual(self.show(node)["state"], "optimal")
        self.check(node)
        node.kill()
        self.extend(node, 56)  # again, before the array has grown
        self.start(node)
        self.assertEqual(self.show(node)["state"], "optimal")
        self.settle(node)
        node.gemel("array", "grow", "r5")
        self.check(node)
        self.assertEqual(node.stop(), 0)
        self.extend(node, 64, members=(2,))
        self.start(node)
        self.assertEqual(self.show(node)["state"], "optimal")
        self.check(node)

    def test_wrong_orders_say_what_to_do(self):
        node = self.filled()
        for code, words, order in (
                (3, "no array 'r9'", ("array", "grow", "r9")),
                (4, "needed to grow", ("array", "grow", "r5")),
                (4, "free in pieces", ("volume", "resize", "vol", "1GiB")),
                (6, "--shrink", ("volume", "resize", "vol", "8MiB")),
                (3, "no volume 'x'", ("volume", "resize", "x", "8MiB"))):
            done = node.gemel(*order, check=False)
            self.assertEqual(done.returncode, code, (order, done.stderr))
            self.assertIn(words, done.stderr)
        node.gemel("array", "fail", "r5", "0")
        done = node.gemel("array", "grow", "r5", check=False)
        self.assertEqual(done.returncode, 4)
        self.assertIn("is not in sync", done.stderr)


class Create(EndToEnd):
    def members(self, count=3, size=":32MiB"):
        out = []
        for i in range(count):
            out += ["--member", f"{self.folder}/new{i}{size}"]
        return out

    def test_an_array_that_is_created_is_there_at_once_and_after_a_restart(self):
        node = self.start(self.daemon("n", TEXT))
        done = node.gemel("array", "create", "second", "--level", "5", "--strip", "16KiB", *self.members(),
                          "--spare", f"{self.folder}/spare0:32MiB", "--volume", "data:16MiB", "--volume", "rest")
        self.assertIn('volume = "data"', done.stdout)
        made = node.ask("array", "show", "second")[0]
        self.assertEqual((made["level"], made["state"], len(made["members"]), len(made["spares"])),
                         ("5", "optimal", 3, 1))
        self.assertEqual([a["name"] for a in node.ask("array", "list")], ["r5", "second"])
        self.assertEqual({v["name"] for v in node.ask("volume", "list")}, {"vol", "data", "rest"})
        node.kill()
        node.config.write_text(TEXT + target("u", ("data",)))
        self.start(node)
        self.assertEqual(node.ask("array", "show", "second")[0]["uuid"], made["uuid"])
        ledger = self.folder / "ledger"
        self.assert_good(load(node.url(iqn("u")), seconds=1, depth=8, reads=0, block_size="16KiB", verify=ledger))
        self.assertEqual(node.stop(), 0)
        # The configuration may name it itself later.
        rows = ", ".join(f'{{kind = "file", path = "{self.folder}/new{i}"}}' for i in range(3))
        own = f'[[array]]\nname = "second"\nlevel = 5\nstrip = "16KiB"\nmembers = [{rows}]\n' + volume("data", "second",
                                                                                                  "16MiB")
        node.config.write_text(TEXT + own + target("u", ("data",)))
        self.start(node)
        self.assert_good(load(node.url(iqn("u")), verify=ledger, check=True, block_size="64KiB", depth=4))
        self.assertEqual(node.ask("array", "show", "second")[0]["spares"], [])

    def test_what_cannot_be_created_leaves_nothing(self):
        node = self.start(self.daemon("n", TEXT))
        used = self.folder / "used"
        used.write_bytes(b"data" * MIB)
        for code, words, order in (
                (4, "is there twice", ("r5", "--level", "5", *self.members())),
                (2, "unknown level", ("x", "--level", "7", *self.members())),
                (2, "members", ("x", "--level", "6", *self.members())),
                (4, "vol", ("x", "--level", "5", *self.members(), "--volume", "vol")),
                (4, "not blank", ("x", "--level", "1", *self.members(1), "--member", used)),
                (2, "size", ("x", "--level", "5", *self.members(size=""))),
                (5, "is held by", ("x", "--level", "1", *self.members(1), "--member", f"{node.state_dir}/r50"))):
            done = node.gemel("array", "create", *order, check=False)
            self.assertEqual(done.returncode, code, (order, done.stderr))
            self.assertIn(words, done.stderr)
            self.assertEqual([p.name for p in self.folder.glob("new*")], [], order)
        self.assertEqual([a["name"] for a in node.ask("array", "list")], ["r5"])
        node.kill()
        self.start(node)
        self.assertEqual([a["name"] for a in node.ask("array", "list")], ["r5"])


if __name__ == "__main__":
    unittest.main()
