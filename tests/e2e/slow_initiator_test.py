#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An initiator that stops sending its Data-Out, or taking its Data-In, costs itself: others are served as before."""
import socket
import struct
import unittest

from e2e_case import EndToEnd, array, iqn, target, volume
from lab.initiator import Load

COMMANDS = 128
BLOCKS = 4096  # 2 MiB
OPCODE_R2T = 0x31


class RawInitiator:
    """Logs in and says what it is told to; reads only when asked."""

    def __init__(self, address, name):
        host, port = address.rsplit(":", 1)
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(10)
        self.socket.connect((host, int(port)))
        keys = (f"InitiatorName={name}", f"TargetName={iqn('t')}", "SessionType=Normal", "ImmediateData=No",
                "InitialR2T=Yes", "MaxBurstLength=1048576", "MaxRecvDataSegmentLength=262144")
        text = "".join(key + "\0" for key in keys).encode()
        head = bytes([0x43, 0x87, 0, 0]) + struct.pack(">I", len(text)) + bytes([0x40, 0, 0, 0, 0, 1, 0, 0])
        head += struct.pack(">IIII", 1, 0, 1, 0) + bytes(16)
        self.socket.sendall(head + text + bytes(-len(text) % 4))
        reply, _ = self.receive()
        if reply[0] != 0x23 or reply[36] != 0:
            raise RuntimeError(f"the login failed: {reply.hex()}")
        self.cmd_sn = 1

    def receive(self):
        head = self.exactly(48)
        length = int.from_bytes(head[5:8], "big")
        return head, self.exactly(length + -length % 4)

    def exactly(self, n):
        out = b""
        while len(out) < n:
            part = self.socket.recv(n - len(out))
            if not part:
                raise RuntimeError("the target hung up")
            out += part
        return out

    def command(self, operation, flags, number):
        cdb = bytes([operation, 0]) + struct.pack(">I", 0) + b"\0" + struct.pack(">H", BLOCKS) + bytes(7)
        head = bytes([0x01, 0x80 | flags, 0, 0]) + bytes(4) + bytes(8)
        head += struct.pack(">IIII", number, BLOCKS * 512, self.cmd_sn, 0) + cdb
        self.socket.sendall(head)
        self.cmd_sn += 1

    def close(self):
        self.socket.close()


class SlowInitiator(EndToEnd):
    def others_are_served(self, operation, flags, after):
        config = '[daemon]\nmemory = "64MiB"\n' + array() + volume() + target()
        node = self.start(self.daemon("n", config))
        slow = RawInitiator(node.address, "iqn.2026-11.org.example:slow")
        self.addCleanup(slow.close)
        slow.command(0, 0, 1)  # TEST UNIT READY takes the unit attention
        slow.receive()
        for number in range(COMMANDS):
            slow.command(operation, flags, 2 + number)
        after(slow)
        running = Load(node.url(iqn("t")), seconds=5, depth=16, reads=50, block_size="64KiB",
                       verify=self.folder / "ledger")
        result = running.result()
        self.assert_good(result)
        self.assertLess(result["longest_wait_s"], 5)
        self.assertLess(node.ask("status")["memory"]["in_use_bytes"], 40 << 20)
        self.assertTrue(node.alive())

    def test_that_sends_half_of_its_data_leaves_memory_for_others(self):
        def half(slow):
            reply, _ = slow.receive()
            self.assertEqual(reply[0], OPCODE_R2T)
            tags = reply[16:24]
            head = bytes([0x05, 0, 0, 0]) + struct.pack(">I", 262144) + bytes(8) + tags + bytes(4)
            head += bytes(4) + bytes(4) + struct.pack(">II", 0, 0) + bytes(4)
            slow.socket.sendall(head + bytes(131072))

        self.others_are_served(0x2a, 0x20, half)

    def test_that_takes_nothing_leaves_memory_for_others(self):
        self.others_are_served(0x28, 0x40, lambda slow: None)


if __name__ == "__main__":
    unittest.main()
