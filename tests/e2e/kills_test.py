#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 under load and restart, 50 times, on levels 5, 6 and 10, whole and without a member.

Without a member, writes of levels 5 and 6 that a kill cuts short would leave a hole that the array refuses to start
over without --force. There the kills come under a load of reads, between orderly restarts under writes; level 10 takes
writes and kills as always.
"""
import random
import time
import unittest

from e2e_case import EndToEnd, array, iqn, target, volume
from lab.daemon import wait_until
from lab.initiator import Load, load

SEED = 20261120
KILLS = 50
WHOLE = 38  # kills with all members
LEVELS = {"5": 4, "6": 5, "10": 4}  # and how many members
SPAN = "12MiB"


class Kills(EndToEnd):
    def setUp(self):
        super().setUp()
        self.chance = random.Random(SEED)
        parts = [array(f"r{level}-", level, members, "12MiB") + volume(f"v{level}", f"r{level}-", SPAN)
                 for level, members in LEVELS.items()]
        luns = [target(f"t{level}", [f"v{level}"]) for level in LEVELS]
        self.node = self.start(self.daemon("n", "".join(parts) + "".join(luns)))
        self.kills = 0

    def url(self, level):
        return self.node.url(iqn(f"t{level}"))

    def ledger(self, level):
        return self.folder / f"ledger{level}"

    def load(self, level, reads, seconds):
        return Load(self.url(level), seconds=seconds, depth=8, reads=reads, reconnect=30, span=SPAN,
                    verify=self.ledger(level), block_size=self.chance.choice((4096, 8192, 65536)))

    def check(self, levels):
        """Reads back all that was ever acknowledged."""
        for level in levels:
            self.assert_good(load(self.url(level), verify=self.ledger(level), check=True, block_size="64KiB", depth=8))

    def kill_under(self, reads):
        """One kill and restart under a load of each array; `reads` is their share of it by level, in percent."""
        running = {level: self.load(level, reads[level], 60) for level in LEVELS}
        wait_until(lambda: len(self.node.ask("session", "list")) == len(LEVELS), 20, "all loads run")
        time.sleep(self.chance.uniform(0, 0.5))
        self.node.kill()
        self.kills += 1
        self.start(self.node)
        time.sleep(self.chance.uniform(0, 0.3))
        for one in running.values():
            one.end()
        for level, one in running.items():
            result = one.result()
            self.assert_good(result)
            self.assertGreaterEqual(result["reconnects"], 1, f"the load of level {level} was over before the kill")

    def state(self, level):
        return next(row for row in self.node.ask("status")["arrays"] if row["name"] == f"r{level}-")

    def test_fifty_kills_lose_nothing_that_was_acknowledged(self):
        for round_number in range(WHOLE):
            with self.subTest(kill=self.kills):
                self.kill_under({level: 30 for level in LEVELS})
                self.check([list(LEVELS)[round_number % len(LEVELS)]])
        self.check(LEVELS)
        self.lose_a_member_of_each()
        while self.kills < KILLS:
            with self.subTest(kill=self.kills, degraded=True):
                for level in LEVELS:
                    self.assert_good(self.load(level, 30, 1).result())
                self.assertEqual(self.node.stop(), 0)
                self.start(self.node)
                for _ in range(3):
                    self.kill_under({"5": 100, "6": 100, "10": 30})
                self.check(LEVELS)
        for level in LEVELS:
            self.assertEqual(self.state(level)["state"], "degraded", level)

    def lose_a_member_of_each(self):
        wait_until(lambda: not any(self.state(level)["resync"] for level in LEVELS), 60, "all is resynced")
        self.assertEqual(self.node.stop(), 0)
        for level in LEVELS:
            (self.node.state_dir / f"r{level}-1").rename(self.folder / f"lost{level}")
        self.start(self.node)


if __name__ == "__main__":
    unittest.main()
