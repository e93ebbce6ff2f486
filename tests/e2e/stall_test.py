#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The longest time a host waits when the peer stops answering, vanishes or is cut off: at most 10 s by default."""
import signal
import time
import unittest

from e2e_case import Pair
from lab.initiator import Load, load

LIMIT_SECONDS = 10.0


class Stall(Pair):
    def measure(self, what, fault, repair):
        self.establish()
        ledger, url = self.folder / "ledger", self.url(self.alpha)
        running = Load(url, seconds=16, depth=4, reads=50, verify=ledger)
        time.sleep(2)
        fault()
        result = running.result()
        self.assert_good(result)
        print(f"\nlongest wait of a host command when the peer {what}: {result['longest_wait_s']:.2f} s", flush=True)
        self.assertLessEqual(result["longest_wait_s"], LIMIT_SECONDS)
        self.assertGreater(self.alpha.pair("vol")["dirty_bytes"], 0, "writes without the peer must be recorded")
        repair()
        self.wait_mirrored(self.alpha)
        self.assertEqual(self.alpha.pair("vol")["dirty_bytes"], 0)
        self.assert_good(load(url, verify=ledger, check=True, block_size="64KiB", depth=8))

    def test_the_host_waits_at_most_ten_seconds_when_the_peer_stops_answering(self):
        self.measure("stops (SIGSTOP)", lambda: self.beta.signal(signal.SIGSTOP),
                     lambda: self.beta.signal(signal.SIGCONT))

    def test_the_host_waits_at_most_ten_seconds_when_the_peer_is_killed(self):
        self.measure("is killed", self.beta.kill, lambda: self.start(self.beta))

    def test_the_host_waits_at_most_ten_seconds_when_nothing_passes_the_link(self):
        def freeze():
            for proxy in self.proxies:
                proxy.freeze()

        def repair():
            self.cut()
            self.heal()
        self.measure("is behind a half-open link", freeze, repair)


if __name__ == "__main__":
    unittest.main()
