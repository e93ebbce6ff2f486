#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Garbage on the iSCSI and replication ports, and a link that damages frames: other sessions never notice."""
import os
import random
import socket
import struct
import time
import unittest
from pathlib import Path

from e2e_case import MIRROR_SECONDS, EndToEnd, Pair, array, iqn, target, volume
from lab.daemon import Refused, wait_until
from lab.initiator import Load, load

CHANCE = random.Random(7)
LOGIN = bytes([0x43, 0x87, 0, 0]) + bytes(44)
TLS_HANDSHAKE = 0x16
KEY = "1f" * 32


def pdu(opcode, data_length, rest=b""):
    """A basic header segment with a length that may be a lie."""
    return bytes([opcode, 0x80, 0, 0, 0]) + struct.pack(">I", data_length)[1:] + bytes(40) + rest


GARBAGE = (
    b"GET / HTTP/1.0\r\n\r\n",
    b"\0" * 48,
    b"\xff" * 4096,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    LOGIN[:20],
    pdu(0x43, 0xffffff),
    pdu(0x43, 12, b"garbage=\xff\xfe\0"),
    pdu(0x01, 0),
    pdu(0x05, 0xfffffc),
    pdu(0x3f, 0),
    *(CHANCE.randbytes(CHANCE.randrange(1, 20000)) for _ in range(30)),
)


def throw(address, payload, linger=0.0):
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=5) as s:
        try:
            s.sendall(payload)
            s.settimeout(linger or 0.2)
            while s.recv(65536):
                pass
        except OSError:
            pass


def descriptors(daemon):
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


def resident_mib(daemon):
    return int(Path(f"/proc/{daemon.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


class GarbageOnThePortal(EndToEnd):
    def test_garbage_closes_only_its_own_connection(self):
        node = self.start(self.daemon("n", array() + volume() + target()))
        before = descriptors(node)
        running = Load(node.url(iqn("t")), seconds=12, depth=8, reads=50, verify=self.folder / "ledger")
        for payload in GARBAGE:
            throw(node.address, payload)
        self.assert_good(running.result())
        self.assertTrue(node.alive())
        self.assertGreaterEqual(node.ask("status")["iscsi"]["protocol_errors"], len(GARBAGE) // 2)
        wait_until(lambda: descriptors(node) <= before + 2, 30, "descriptors of the broken connections are back")

    def test_idle_connections_that_never_log_in_are_bounded_and_end(self):
        node = self.start(self.daemon("n", array() + volume() + target()))
        host, port = node.address.rsplit(":", 1)
        memory = resident_mib(node)
        idle = [socket.create_connection((host, int(port)), timeout=5) for _ in range(200)]
        for s in idle[::2]:
            try:
                s.sendall(LOGIN[:30])
            except OSError:
                pass  # closed by the limit of connections that have not logged in
        self.assertLess(resident_mib(node) - memory, 100)
        for s in idle:
            s.close()
        wait_until(lambda: load(node.url(iqn("t")), operations=10)["exit_code"] == 0, 30, "a real login works")


class GarbageOnTheLink(Pair):
    def test_garbage_on_the_replication_port_disturbs_nothing(self):
        self.establish()
        listen = "%s:%d" % self.to["beta"].target
        mine = "%s:%d" % self.to["alpha"].target
        running = Load(self.url(self.alpha), seconds=12, depth=8, reads=50, verify=self.folder / "ledger")
        for payload in GARBAGE:
            throw(listen, payload)
            throw(mine, payload)
        result = running.result()
        self.assert_good(result)
        self.assertLess(result["longest_wait_s"], 5)
        self.wait_mirrored(self.alpha)

    def test_flipped_bits_on_the_link_never_reach_the_peers_data(self):
        self.establish()
        ledger = self.folder / "ledger"
        running = Load(self.url(self.alpha), seconds=6, depth=8, reads=0, block_size="16KiB", verify=ledger)
        for _ in range(10):
            time.sleep(0.4)
            for proxy in self.proxies:
                proxy.corrupt_next()
        self.assert_good(running.result())
        self.wait_mirrored(self.alpha)
        self.beta.gemel("promote", "vol")
        self.wait_mirrored(self.beta)
        self.assert_good(load(self.url(self.beta), verify=ledger, check=True, block_size="64KiB", depth=4))


class LinkWithKeys(Pair):
    """The link is TLS: only holders of the pair's key are peers."""

    def key(self, node, digits):
        file = self.folder / f"{node}.key"
        file.write_text(digits + "\n")
        file.chmod(0o600)
        return file

    def config(self, node, listen, other):
        text = super().config(node, listen, other)
        at = f'address = "{self.to[other].address}"\n'
        return text.replace(at, at + f'key_file = "{self.key(node, KEY)}"\n')

    def events(self, node):
        return node.gemel("events").stdout

    def test_a_pair_mirrors_over_tls_through_garbage_cuts_and_flipped_bits(self):
        self.establish()
        ledger = self.folder / "ledger"
        running = Load(self.url(self.alpha), seconds=10, depth=8, reads=0, block_size="16KiB", verify=ledger)
        time.sleep(0.5)
        for proxy in self.proxies:
            proxy.corrupt_next()
        time.sleep(1)
        self.cut()
        time.sleep(0.5)
        self.heal()
        for payload in GARBAGE:
            throw("%s:%d" % self.to["beta"].target, payload, linger=0.05)
        self.assertIsNone(running.process.poll(), "the load ended before the faults did")
        self.assert_good(running.result())
        self.wait_mirrored(self.alpha)
        self.assertIn("peer-lost", self.events(self.alpha))
        openings = [o for proxy in self.proxies for o in proxy.openings]
        self.assertGreaterEqual(len(openings), 2, "one of the start, one after the cut")
        self.assertEqual({o[0] for o in openings}, {TLS_HANDSHAKE})
        self.beta.gemel("promote", "vol")
        self.wait_mirrored(self.beta)
        self.assert_good(load(self.url(self.beta), verify=ledger, check=True, block_size="64KiB", depth=4))

    def test_another_key_is_no_peer_and_one_that_others_can_read_is_not_used(self):
        key = self.key("beta", "2e" * 32)
        self.start(self.alpha)
        self.start(self.beta)
        refused = "binder does not verify; both nodes need the same key_file"
        wait_until(lambda: refused in self.events(self.beta), 20, "beta refuses the key")
        until = time.monotonic() + 5
        while time.monotonic() < until:
            done = self.alpha.gemel("mirror", "establish", "vol", "--peer", "beta", check=False)
            self.assertEqual(done.returncode, 5, done.stderr)
        self.assertEqual(self.beta.ask("mirror", "status"), [])
        self.assertEqual(self.beta.stop(), 0)
        self.key("beta", KEY)
        self.start(self.beta)
        self.alpha.establish("vol", "beta", MIRROR_SECONDS)
        self.wait_mirrored(self.alpha)
        self.assertEqual(self.beta.stop(), 0)
        key.chmod(0o644)
        with self.assertRaises(Refused) as failed:
            self.beta.start()
        self.assertEqual(failed.exception.code, 3)
        self.assertIn("chmod 600", str(failed.exception))


if __name__ == "__main__":
    unittest.main()
