#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two copies of a volume: what one node cannot read comes from the other, and a comparison finds what differs."""
import random
import time
import unittest

from e2e_case import MIB, Pair, array, iqn, target, volume
from lab.daemon import run, wait_until
from lab.initiator import load


class Copies(Pair):
    """Neither node has redundancy of its own; only alpha has checksums."""

    def config(self, node, listen, other):
        text = f'[node]\nname = "{node}"\n[replication]\nlisten = "{listen}"\n'
        text += f'[[peer]]\nnode = "{other}"\naddress = "{self.to[other].address}"\n'
        of = array(name="s", level="0", members=2)
        if node == "beta":
            of = of.replace("strip =", "checksums = false\nstrip =")
        luns = target(volumes=("vol", "vol")).replace('lun = 1,', "lun = 1, severed_copy = true,")
        return text + of + volume(of="s", size="48MiB") + luns

    def overwrite(self, node, at, count):
        with open(self.folder / node / "s0", "r+b") as file:
            file.seek(at)
            file.write(random.Random(at).randbytes(count))

    def quiet(self):
        """Until no region is marked, and the journal has let go of everything."""
        wait_until(lambda: self.alpha.pair("vol")["region_bytes"] == 0, 30, "no region is marked")
        time.sleep(5)

    def test_what_one_node_cannot_read_comes_from_the_other_and_hosts_see_no_error(self):
        self.establish()
        ledger = self.folder / "ledger"
        self.assert_good(load(self.url(self.alpha), seconds=2, depth=8, reads=0, block_size="16KiB", verify=ledger))
        self.quiet()
        self.assertEqual(self.alpha.stop(), 0)
        self.overwrite("alpha", 1 * MIB, 3 * MIB)
        self.start(self.alpha)
        self.wait_mirrored(self.alpha)
        self.assert_good(load(self.url(self.alpha), verify=ledger, check=True, block_size="64KiB", depth=4))
        healed = self.alpha.pair("vol")["healed_blocks"]
        self.assertGreater(healed, 0)
        self.assertIn("pair-healed", self.alpha.gemel("events").stdout)
        self.assert_good(load(self.url(self.alpha), verify=ledger, check=True, block_size="64KiB", depth=4))
        self.assertEqual(self.alpha.pair("vol")["healed_blocks"], healed, "each was rewritten here")
        # What no host ever wrote has no checksum and counts as it lies: there the garbage is different, not unreadable.
        self.alpha.gemel("mirror", "verify", "vol", "--wait", check=False)
        self.assertEqual(self.alpha.pair("vol")["verify"]["unreadable_here"], 0)

    def test_the_copy_of_a_severed_secondary_is_a_lun_of_its_own_that_does_not_change(self):
        self.establish()
        ledger = self.folder / "ledger"
        self.assert_good(load(self.url(self.alpha), seconds=1, depth=8, reads=0, block_size="16KiB", verify=ledger))
        copy = self.beta.url(iqn("t"), lun=1)
        self.assertNotEqual(load(copy, verify=ledger, check=True)["exit_code"], 0, "mirrored: it changes")
        self.alpha.gemel("mirror", "sever", "vol")
        self.assert_good(load(self.url(self.alpha), seconds=1, depth=8, reads=0, block_size="16KiB"))
        self.assert_good(load(copy, verify=ledger, check=True, block_size="64KiB", depth=4))
        self.assertNotEqual(load(copy, operations=1, reads=0)["exit_code"], 0, "it is only read")
        serials = {run(["iscsi-inq", "-e", "1", "-c", "128", url]).stdout for url in (copy, self.url(self.alpha))}
        self.assertEqual(len(serials), 2, serials)
        self.alpha.gemel("mirror", "re-establish", "vol", "--wait")
        self.wait_mirrored(self.alpha)
        self.alpha.gemel("mirror", "verify", "vol", "--wait")

    def test_a_difference_is_found_told_and_repaired_while_hosts_write(self):
        self.establish()
        ledger = self.folder / "ledger"
        self.assert_good(load(self.url(self.alpha), seconds=2, depth=8, reads=0, block_size="16KiB", verify=ledger))
        self.quiet()
        self.alpha.gemel("mirror", "verify", "vol", "--wait")
        self.assertEqual(self.beta.stop(), 0)
        self.overwrite("beta", 2 * MIB, MIB)
        self.start(self.beta)
        self.wait_mirrored(self.alpha)
        found = self.alpha.gemel("mirror", "verify", "vol", "--wait", check=False)
        self.assertEqual(found.returncode, 1, found.stdout + found.stderr)
        shown = self.alpha.pair("vol")["verify"]
        self.assertEqual(shown["different_blocks"], MIB // 4096)
        self.assertEqual(shown["repaired_blocks"], 0)
        self.assertIn("pair-different", self.alpha.gemel("events").stdout)
        self.alpha.gemel("mirror", "verify", "vol", "--repair", "--wait")
        self.assertEqual(self.alpha.pair("vol")["verify"]["repaired_blocks"], MIB // 4096)
        self.alpha.gemel("mirror", "verify", "vol", "--wait")
        self.beta.gemel("promote", "vol")
        self.wait_mirrored(self.beta)
        self.assert_good(load(self.url(self.beta), verify=ledger, check=True, block_size="64KiB", depth=4))
        refused = self.alpha.gemel("mirror", "verify", "vol", check=False)
        self.assertEqual(refused.returncode, 4, refused.stderr)


if __name__ == "__main__":
    unittest.main()
