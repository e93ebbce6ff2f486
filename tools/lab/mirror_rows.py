# SPDX-License-Identifier: Apache-2.0
"""The rows of `tools/bench mirror`: a pair of daemons with members in memory, and an unmirrored volume beside it."""
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from lab.daemon import Daemon, binaries, free_port, run, wait_until
from lab.initiator import Load, load
from lab.proxy import Proxy

IQN = "iqn.2026-11.dev.gemel:bench"
VOLUMES = 8
MIB = 1 << 20
VOLUME_BYTES = 64 * MIB


def config(node, listen, peer, peer_address):
    """Volumes m0 to m7, which are mirrored, and p, which is not; LUNs in this order."""
    names = [f"m{i}" for i in range(VOLUMES)] + ["p"]
    text = f'[node]\nname = "{node}"\n[replication]\nlisten = "{listen}"\n'
    text += f'[[peer]]\nnode = "{peer}"\naddress = "{peer_address}"\n'
    size = (len(names) * VOLUME_BYTES) // MIB + 64
    text += f'[[array]]\nname = "ram"\nlevel = 0\nmembers = [{{kind = "memory", size = "{size}MiB"}}]\n'
    for name in names:
        text += f'[[volume]]\nname = "{name}"\narray = "ram"\nsize = "{VOLUME_BYTES // MIB}MiB"\n'
    luns = ", ".join(f'{{lun = {i}, volume = "{name}"}}' for i, name in enumerate(names))
    return text + f'[[target]]\niqn = "{IQN}"\nluns = [{luns}]\n'


class Lab:
    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="gemel-bench-"))
        listen = {n: f"127.0.0.1:{free_port()}" for n in ("alpha", "beta")}
        self.nodes = {}
        # The node whose name comes first dials: all of the link goes through this one cable, or past it.
        self.cable = Proxy(listen["beta"])
        for name, other in (("alpha", "beta"), ("beta", "alpha")):
            file = self.folder / f"{name}.toml"
            file.write_text(config(name, listen[name], other, listen[other]))
            self.nodes[name] = Daemon(file, self.folder / name, portal="127.0.0.1:0")
        self.direct = listen["beta"]

    @property
    def alpha(self):
        return self.nodes["alpha"]

    def start(self, through_cable=False):
        if through_cable:
            file = self.folder / "alpha.toml"
            file.write_text(file.read_text().replace(self.direct, self.cable.address))
        for node in self.nodes.values():
            node.start()
        for i in range(VOLUMES):
            self.alpha.establish(f"m{i}", "beta")
        wait_until(lambda: all(self.alpha.pair(f"m{i}")["state"] == "mirrored" for i in range(VOLUMES)), 120,
                   "all volumes are mirrored")
        for lun in range(VOLUMES + 1):  # every page of memory is there before anything is timed
            load(self.url(lun), block_size=MIB, depth=4, reads=0, pattern="sequential", operations=VOLUME_BYTES // MIB)
        return self

    def stop(self):
        for node in self.nodes.values():
            if node.process is not None and node.alive():
                node.stop()
        self.cable.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, lun):
        return self.alpha.url(IQN, lun)

    @property
    def plain(self):
        return self.url(VOLUMES)


def writes(url, seconds, **options):
    result = load(url, seconds=seconds, warmup=0.2, reads=0, **options)
    if result["exit_code"] != 0:
        raise RuntimeError(f"writes to {url}: {result['problems']}")
    return result["writes"]


def busy_ticks():
    """Of all processors of the machine, in clock ticks."""
    fields = [int(f) for f in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return sum(fields) - fields[3] - fields[4]


def turns(pairs, one, other):
    """Both measured in turns: the median of each, and of their ratios."""
    found = []
    for n in range(pairs):
        first, second = (one, other) if n % 2 == 0 else (other, one)
        a, b = first(), second()
        found.append((a, b) if n % 2 == 0 else (b, a))
    return [statistics.median(f[i] for f in found) for i in (0, 1)] + [statistics.median(a / b for a, b in found)]


def latency(lab, arguments):
    pingpong = statistics.median(float(run([binaries() / "pingpong_bench"]).stdout) for _ in range(5))
    mirrored, bound, ratio = turns(
        arguments.pairs, lambda: writes(lab.url(0), arguments.seconds, depth=1)["latency_us"]["p50"],
        lambda: writes(lab.plain, arguments.seconds, depth=1)["latency_us"]["p50"] + pingpong)
    return ("p50 of a mirrored 4 KiB write, depth 1", mirrored, "us", f"unmirrored + ping-pong {bound:.1f} us", ratio,
            1.25, ratio <= 1.25)


def processor(lab, arguments):
    def per_write(url):
        before = busy_ticks()
        done = load(url, seconds=arguments.seconds, reads=0, depth=32)["writes"]["operations"]
        return (busy_ticks() - before) * 10000 / done  # a tick is 10 ms
    mine, plain, ratio = turns(arguments.pairs, lambda: per_write(lab.url(0)), lambda: per_write(lab.plain))
    return ("processor time of the machine per mirrored 4 KiB write", mine, "us", f"unmirrored {plain:.1f} us", ratio,
            2.3, ratio <= 2.3)


def throughput(lab, arguments):
    def rate(url):
        return writes(url, arguments.seconds, depth=8, block_size=256 << 10, pattern="sequential")["iops"] / 4
    mine, plain, ratio = turns(arguments.pairs, lambda: rate(lab.url(0)), lambda: rate(lab.plain))
    return ("256 KiB sequential mirrored writes", mine, "MiB/s", f"unmirrored {plain:.0f} MiB/s", ratio, 0.45,
            ratio >= 0.45)


def fairness(lab, arguments):
    running = [Load(lab.url(i), seconds=arguments.seconds * 2, warmup=0.2, reads=0, depth=4) for i in range(VOLUMES)]
    rates = [r.result()["writes"]["iops"] for r in running]
    ratio = max(rates) / min(rates)
    return ("8 volumes over one link, fastest", max(rates), "IOPS", f"slowest {min(rates):.0f} IOPS", ratio, 1.5,
            ratio < 1.5)


def verify(lab, arguments):
    """A comparison of both copies against sequential reads of one of them by a host."""
    def compared():
        begin = time.monotonic()
        lab.alpha.gemel("mirror", "verify", "m0")
        while lab.alpha.pair("m0")["verify"]["state"] != "done":  # gemel itself would wait in steps of 250 ms
            pass
        return VOLUME_BYTES / MIB / (time.monotonic() - begin)

    def read():
        done = load(lab.plain, block_size=256 << 10, depth=8, reads=100, pattern="sequential",
                    operations=VOLUME_BYTES >> 18)
        return done["reads"]["iops"] / 4
    mine, plain, ratio = turns(arguments.pairs, compared, read)
    return "verify", mine, "MiB/s", f"reads by a host {plain:.0f} MiB/s", ratio, None, True


def wire(lab, block, limit):
    """Bytes of the link's connection, both directions, per mirrored byte. The link must go through the cable."""
    count = 64 * MIB // block // (16 if block == 4096 else 1)
    before = sum(lab.cable.forwarded)
    load(lab.url(0), operations=count, reads=0, depth=8, block_size=block, pattern="sequential")
    ratio = (sum(lab.cable.forwarded) - before) / (count * block)
    return (f"bytes of the link per mirrored byte, writes of {block // 1024} KiB", ratio, "", None, ratio, limit,
            ratio <= limit)


ROWS = (latency, processor, throughput, fairness, verify)
WIRE_ROWS = (lambda lab, _: wire(lab, 4096, 1.04), lambda lab, _: wire(lab, 256 << 10, 1.005))


def rows(arguments):
    """Each row as bench.emit() takes it."""
    for through_cable, some in ((False, ROWS), (True, WIRE_ROWS)):
        lab = Lab()
        try:
            lab.start(through_cable)
            for row in some:
                yield row(lab, arguments)
        finally:
            lab.stop()
