#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A network cable that can be cut: a small TCP proxy.

In a program: Proxy("127.0.0.1:7262"), then .cut(), .heal(), .freeze(), .corrupt_next(), .forwarded, .openings.
As a process: proxy.py LISTEN TARGET [LISTEN TARGET ...]; SIGUSR1 cuts all, SIGUSR2 heals all, SIGTERM ends.
"""
import signal
import socket
import sys
import threading

PIECE = 256 * 1024


def split_address(address):
    host, port = address.rsplit(":", 1)
    return host.strip("[]"), int(port)


class Proxy:
    """Forwards every connection to `target` ("host:port").

    Threads: one that accepts, two per connection. The mode is changed from any thread.
    """

    def __init__(self, target, listen="127.0.0.1:0"):
        self.target = split_address(target)
        self._mode = "pass"  # pass, cut (connections end, none is accepted), freeze (nothing moves, nothing ends)
        self._changed = threading.Condition()
        self._connections = set()
        self._corrupt = 0
        self.forwarded = [0, 0]  # bytes towards the target, bytes back
        self.openings = []  # the first bytes of each connection, as its opener sent them
        self._listener = socket.create_server(split_address(listen), backlog=64)
        self.address = "%s:%d" % self._listener.getsockname()[:2]
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        """Ends all connections at once and refuses new ones, as a pulled cable with a fast reset."""
        self._set("cut")
        with self._changed:
            connections, self._connections = self._connections, set()
        for connection in connections:
            abandon(connection)

    def freeze(self):
        """Nothing moves any more, but nothing is closed either: a half-open link."""
        self._set("freeze")

    def heal(self):
        self._set("pass")

    def corrupt_next(self, pieces=1):
        """Flips one bit in each of the next pieces that pass."""
        with self._changed:
            self._corrupt += pieces

    def close(self):
        self.cut()
        self._listener.close()

    def _set(self, mode):
        with self._changed:
            self._mode = mode
            self._changed.notify_all()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near):
        if self._mode == "cut":
            abandon(near)
            return
        try:
            far = socket.create_connection(self.target, timeout=5)
        except OSError:
            abandon(near)
            return
        far.settimeout(None)
        with self._changed:
            if self._mode == "cut":
                abandon(near)
                abandon(far)
                return
            self._connections.update((near, far))
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=self._pump, args=(far, near, 1), daemon=True)
        back.start()
        self._pump(near, far, 0, opening=True)
        back.join()
        with self._changed:
            self._connections.difference_update((near, far))
        near.close()
        far.close()

    def _pump(self, source, sink, direction, opening=False):
        try:
            while piece := source.recv(PIECE):
                if opening:
                    self.openings.append(piece[:64])
                    opening = False
                sink.sendall(self._passed(piece))
                self.forwarded[direction] += len(piece)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _passed(self, piece):
        with self._changed:
            while self._mode == "freeze":
                self._changed.wait()
            if self._corrupt > 0:
                self._corrupt -= 1
                damaged = bytearray(piece)
                damaged[len(damaged) // 2] ^= 0x40
                return bytes(damaged)
        return piece


def abandon(connection):
    """Closes with a reset, so that the other end learns at once."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    connection.close()


def main():
    ends = sys.argv[1:]
    if not ends or len(ends) % 2 != 0:
        print(__doc__, file=sys.stderr)
        return 2
    signals = {signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before the threads, which inherit it
    proxies = [Proxy(target, listen) for listen, target in zip(ends[::2], ends[1::2])]
    for proxy, target in zip(proxies, ends[1::2]):
        print(f"proxy: {proxy.address} to {target}", flush=True)
    while True:
        got = signal.sigwait(signals)
        for proxy in proxies:
            {signal.SIGUSR1: proxy.cut, signal.SIGUSR2: proxy.heal}.get(got, proxy.close)()
        if got in (signal.SIGTERM, signal.SIGINT):
            return 0


if __name__ == "__main__":
    sys.exit(main())
