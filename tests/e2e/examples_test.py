#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every example configuration starts, serves its LUN and stops; a real client writes an image and reads it back."""
import re
import unittest

from e2e_case import EndToEnd, MIB, array, iqn, target, volume
from lab.daemon import TOP, free_port, run
from lab.image import make_image
from lab.initiator import compare_image, load, read_image, write_image

EXAMPLES = sorted((TOP / "conf").glob("*.toml"))


def on_free_ports(text):
    return re.sub(r"127\.0\.0\.1:\d+", lambda _: f"127.0.0.1:{free_port()}", text)


class Examples(EndToEnd):
    def test_every_example_passes_the_check_and_starts_and_serves(self):
        self.assertGreaterEqual(len(EXAMPLES), 4)
        for example in EXAMPLES:
            with self.subTest(example.name):
                text = on_free_ports(example.read_text())
                node = self.daemon(example.stem, text, portal=None)
                run([self.gemeld(), "--check-config", node.config])
                self.start(node)
                name = re.search(r'iqn\s*=\s*"([^"]+)"', text).group(1)
                result = load(node.url(name), operations=500, depth=8, reads=50, verify=self.folder / "ledger")
                (self.folder / "ledger").unlink()
                self.assert_good(result)
                self.assertEqual(node.stop(), 0)

    def gemeld(self):
        from lab.daemon import binaries
        return binaries() / "gemeld"

    def test_an_array_of_files_keeps_its_data_over_a_restart(self):
        node = self.start(self.daemon("n", array() + volume() + target()))
        image, copy = self.folder / "image.raw", self.folder / "copy.raw"
        make_image(image, 64 * MIB)
        url = node.url(iqn("t"))
        write_image(image, url)
        self.assertTrue(compare_image(image, url))
        node.stop()
        self.start(node)
        read_image(node.url(iqn("t")), copy)
        self.assertEqual(copy.read_bytes()[:image.stat().st_size], image.read_bytes())
        run(["e2fsck", "-fn", image])

    def test_discovery_lists_the_targets_and_their_luns(self):
        text = array() + volume("a", size="20MiB") + volume("b", size="20MiB") + target("t", ("a", "b"))
        node = self.start(self.daemon("n", text))
        listed = run(["iscsi-ls", "-s", f"iscsi://{node.address}"]).stdout
        self.assertIn(iqn("t"), listed)
        self.assertEqual(len(re.findall(r"Lun:", listed)), 2, listed)

    def test_header_digests_protect_the_same_traffic(self):
        node = self.start(self.daemon("n", array() + volume() + target()))
        ledger = self.folder / "ledger"
        for block, depth in ((4096, 16), (65536, 4), (1 << 20, 2)):
            result = load(node.url(iqn("t")), block_size=block, depth=depth, reads=50, operations=200,
                          header_digest=True, verify=ledger)
            self.assert_good(result)
        self.assert_good(load(node.url(iqn("t")), verify=ledger, check=True, block_size="64KiB", depth=4))

    def test_many_sessions_share_a_lun_and_none_reads_anothers_data(self):
        node = self.start(self.daemon("n", array() + volume() + target()))
        result = load(node.url(iqn("t")), sessions=24, depth=4, reads=50, seconds=3, verify=self.folder / "ledger")
        self.assert_good(result)
        self.assertGreater(result["verify"]["sectors_checked"], 0)
        lun = node.ask("stats")["targets"][0]["luns"][0]
        for kind in ("reads", "writes"):
            self.assertGreaterEqual(lun[kind]["operations"], result[kind]["operations"])
            self.assertEqual(sum(lun[kind]["latency"]), lun[kind]["operations"])
            self.assertEqual(lun[kind]["bytes"], 4096 * lun[kind]["operations"])


if __name__ == "__main__":
    unittest.main()
