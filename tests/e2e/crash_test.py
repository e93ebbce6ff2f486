#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 loses nothing: acknowledged writes are checked by stamped sectors, on one node and on a pair."""
import random
import time
import unittest

from e2e_case import LONG, EndToEnd, Pair, array, iqn, target, volume
from lab.daemon import wait_until
from lab.initiator import Load, load

ROUNDS = 50 if LONG else 5
SEED = 20261120


class SingleNode(EndToEnd):
    def test_acknowledged_writes_survive_kill_and_restart_under_load(self):
        chance = random.Random(SEED)
        node = self.start(self.daemon("n", array() + volume() + target()))
        ledger, url = self.folder / "ledger", node.url(iqn("t"))
        for round_number in range(ROUNDS):
            with self.subTest(round=round_number):
                running = Load(url, seconds=3, depth=16, reads=30, reconnect=30, verify=ledger,
                               block_size=chance.choice((4096, 8192, 65536)))
                time.sleep(chance.uniform(0.3, 1.5))
                node.kill()
                self.start(node)
                result = running.result()
                self.assert_good(result)
                self.assertGreaterEqual(result["reconnects"], 1)
                self.assert_good(load(url, verify=ledger, check=True, block_size="64KiB", depth=8))

    def test_a_write_without_an_answer_is_old_or_new_when_the_host_gives_up(self):
        node = self.start(self.daemon("n", array() + volume() + target()))
        ledger, url = self.folder / "ledger", node.url(iqn("t"))
        running = Load(url, seconds=20, depth=16, reads=0, verify=ledger, span="8MiB")
        time.sleep(1)
        node.kill()
        result = running.result()
        self.assertEqual(result["exit_code"], 4, "without --reconnect a lost target ends the run")
        self.assertGreater(result["verify"]["possible_writes"], 0)
        self.start(node)
        self.assert_good(load(url, verify=ledger, check=True, block_size="64KiB", depth=8))


class TwoNodes(Pair):
    def setUp(self):
        super().setUp()
        self.chance = random.Random(SEED)

    def fault_cut(self, primary, secondary):
        self.cut()
        time.sleep(self.chance.uniform(0.2, 6))
        self.heal()

    def fault_kill_secondary(self, primary, secondary):
        secondary.kill()
        time.sleep(self.chance.uniform(0, 3))
        self.start(secondary)

    def fault_kill_primary(self, primary, secondary):
        primary.kill()
        self.start(primary)

    def fault_kill_both(self, primary, secondary):
        primary.kill()
        secondary.kill()
        self.start(secondary)
        self.start(primary)

    def test_acknowledged_writes_survive_cuts_and_kills_of_either_node(self):
        self.establish()
        ledger, url = self.folder / "ledger", self.url(self.alpha)
        faults = (self.fault_cut, self.fault_kill_secondary, self.fault_kill_primary, self.fault_kill_both)
        for round_number in range(ROUNDS if LONG else len(faults)):
            fault = faults[round_number % len(faults)]
            with self.subTest(round=round_number, fault=fault.__name__):
                running = Load(url, seconds=4, depth=8, reads=30, reconnect=60, verify=ledger)
                time.sleep(self.chance.uniform(0.3, 1.5))
                fault(self.alpha, self.beta)
                result = running.result()
                self.assert_good(result)
                self.wait_mirrored(self.alpha)
                self.assert_good(load(url, verify=ledger, check=True, block_size="64KiB", depth=8))
        self.promote(self.beta)
        self.assert_good(load(self.url(self.beta), verify=ledger, check=True, block_size="64KiB", depth=8))

    def promote(self, node):
        """With contact, so without force."""
        node.gemel("promote", "vol")
        self.wait_mirrored(node)

    def test_the_peer_takes_over_with_every_acknowledged_write_and_gives_it_back(self):
        self.establish()
        ledger = self.folder / "ledger"
        nodes = [self.alpha, self.beta]
        for round_number in range(10 if LONG else 2):
            primary, secondary = nodes
            with self.subTest(round=round_number):
                running = Load(self.url(primary), seconds=20, depth=8, reads=30, verify=ledger)
                time.sleep(self.chance.uniform(1, 2))
                primary.kill()
                self.assertEqual(running.result()["exit_code"], 4)
                wait_until(lambda: not secondary.pair("vol")["connected"], 15, "the secondary sees the loss")
                self.assertEqual(secondary.gemel("promote", "vol", check=False).returncode, 6, "needs --force")
                secondary.gemel("promote", "vol", "--force")
                url = self.url(secondary)
                self.assert_good(load(url, verify=ledger, check=True, block_size="64KiB", depth=8))
                self.assert_good(load(url, verify=ledger, seconds=1, depth=8, reads=30))
                self.start(primary)
                self.wait_mirrored(secondary)
                nodes.reverse()
        self.promote(nodes[1])
        self.assert_good(load(self.url(nodes[1]), verify=ledger, check=True, block_size="64KiB", depth=8))


if __name__ == "__main__":
    unittest.main()
