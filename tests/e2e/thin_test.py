#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Space given back: what a host discards on a pair leaves the member files of both nodes, and reads as zeros."""
import unittest

from e2e_case import MIB, Pair, array, iqn, volume
from lab.daemon import run, wait_until

FIRST, LENGTH = 8, 48  # MiB of the volume that are discarded
ROW = 5 / 4  # members' bytes for one of the volume


def io(url, *commands):
    """qemu-io, which says what does not match and goes on."""
    arguments = [part for command in commands for part in ("-c", command)]
    done = run(["qemu-io", "-f", "raw", *arguments, url], seconds=120)
    if "failed" in done.stdout or "error" in done.stdout.lower():
        raise AssertionError(done.stdout)


class Thin(Pair):
    def config(self, node, listen, other):
        text = super().config(node, listen, other)
        before = array() + volume(size=self.volume_size(node))
        text = text.replace(before, before.replace("create =", "thin = true\ncreate ="))
        return text.replace('volume = "vol"}', 'volume = "vol", thin = true}')

    def used(self, node):
        """MiB that the members have of their file system."""
        return sum((node.state_dir / f"r5{i}").stat().st_blocks for i in range(5)) * 512 / MIB

    def check(self, node):
        io(node.url(iqn("t")), f"read -P 0x5a 0 {FIRST}M", f"read -P 0 {FIRST}M {LENGTH}M",
           f"read -P 0x5a {FIRST + LENGTH}M {64 - FIRST - LENGTH}M")

    def test_discarded_space_leaves_the_members_of_both_nodes(self):
        self.establish()
        nodes = (self.alpha, self.beta)
        empty = {n: self.used(n) for n in nodes}
        self.assertLess(max(empty.values()), 0.6 * 200, "a new array keeps the space of its areas only")
        url = self.url(self.alpha)
        io(url, "write -P 0x5a 0 64M", "flush")
        full = {n: self.used(n) for n in nodes}
        for n in nodes:
            self.assertGreater(full[n], empty[n] + 0.95 * 64 * ROW)
        sent = self.alpha.pair("vol")["bytes_sent"]
        io(url, f"discard {FIRST}M {LENGTH}M", "flush")
        self.assertLess(self.alpha.pair("vol")["bytes_sent"] - sent, LENGTH * MIB // 8, "zeros went over the link")
        for n in nodes:
            wait_until(lambda n=n: self.used(n) < full[n] - 0.95 * LENGTH * ROW, 60, "the space is given back")
        self.check(self.alpha)
        self.alpha.kill()
        wait_until(lambda: not self.beta.pair("vol")["connected"], 60, "the loss is noticed")
        self.beta.gemel("promote", "vol", "--force")
        self.check(self.beta)
        self.start(self.alpha)
        self.assertLess(self.used(self.alpha), full[self.alpha] - 0.95 * LENGTH * ROW, "holes stay at a start")
        for n in nodes:
            wait_until(lambda n=n: n.ask("array", "show", "r5")[0]["resync"] is None, 60, "the resync has ended")
            n.gemel("array", "scrub", "r5", "--wait", "--timeout", "60")
            self.assertNotIn("scrub-mismatch", n.gemel("events").stdout)


if __name__ == "__main__":
    unittest.main()
