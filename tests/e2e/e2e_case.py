# SPDX-License-Identifier: Apache-2.0
"""What all end-to-end tests share: a folder of their own, daemons that are stopped and inspected, and configurations.

Every wait is bounded, every port is free when taken, only loopback is used, and processes end by the pid started here.
"""
import hashlib
import os
import shutil
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from lab.daemon import Daemon, free_port, wait_until  # noqa: E402
from lab.proxy import Proxy  # noqa: E402

MIB = 1 << 20
LONG = bool(os.environ.get("GEMEL_LONG"))
MIRROR_SECONDS = 120


def iqn(name):
    return f"iqn.2026-11.dev.gemel:{name}"


def array(name="r5", level="5", members=5, size="40MiB", folder="", create=True):
    """A file-member array as TOML; its members are NAME0, NAME1 ... in the state directory."""
    rows = ",\n  ".join(f'{{kind = "file", path = "{folder}{name}{i}", size = "{size}"}}' for i in range(members))
    text = f'[[array]]\nname = "{name}"\nlevel = "{level}"\nstrip = "16KiB"\n'
    return text + f"create = {str(create).lower()}\nmembers = [\n  {rows}\n]\n"


def volume(name="vol", of="r5", size="64MiB"):
    return f'[[volume]]\nname = "{name}"\narray = "{of}"\nsize = "{size}"\n'


def target(name="t", volumes=("vol",), more=""):
    luns = ", ".join(f'{{lun = {i}, volume = "{v}"}}' for i, v in enumerate(volumes))
    return f'[[target]]\niqn = "{iqn(name)}"\nluns = [{luns}]\n{more}'


class EndToEnd(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="gemel-e2e-"))
        self.daemons = []
        self.proxies = []

    def tearDown(self):
        reports = []
        for daemon in self.daemons:
            if daemon.alive():
                code = daemon.stop()
                if code != 0:
                    reports.append(f"gemeld ended with code {code} after SIGTERM: {daemon.log_text()[-1500:]}")
            if daemon.process is not None and daemon.sanitizer_report():
                reports.append(daemon.sanitizer_report())
        for proxy in self.proxies:
            proxy.close()
        if os.environ.get("GEMEL_KEEP"):
            print("kept:", self.folder)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.assertEqual(reports, [])

    def daemon(self, name, text, portal="127.0.0.1:0", extra=()):
        """A daemon with this configuration, not started; a restart keeps the port of the first start."""
        config = self.folder / f"{name}.toml"
        config.write_text(text)
        made = Daemon(config, self.folder / name, portal=portal, extra=extra)
        self.daemons.append(made)
        return made

    def start(self, daemon, seconds=30):
        daemon.start(seconds)
        if daemon.portal:
            daemon.portal = daemon.address
        return daemon

    def hashes(self, folder):
        """{file: hash} of the member files below a state directory."""
        files = [p for p in sorted(Path(folder).iterdir()) if p.is_file() and p.name[-1].isdigit()]
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    def assert_good(self, result):
        self.assertEqual(result["exit_code"], 0, result["problems"])


class Pair(EndToEnd):
    """Two nodes with a proxy in each direction of the link, each RAID-5 of five files with one volume."""

    def setUp(self):
        super().setUp()
        listen = {n: f"127.0.0.1:{free_port()}" for n in ("alpha", "beta")}
        self.to = {n: Proxy(listen[n]) for n in listen}
        self.proxies = list(self.to.values())
        for node, other in (("alpha", "beta"), ("beta", "alpha")):
            setattr(self, node, self.daemon(node, self.config(node, listen[node], other)))

    def config(self, node, listen, other):
        text = f'[node]\nname = "{node}"\n[replication]\nlisten = "{listen}"\n'
        text += f'[[peer]]\nnode = "{other}"\naddress = "{self.to[other].address}"\n'
        return text + array() + volume(size=self.volume_size(node)) + target()

    def volume_size(self, _node):
        return "64MiB"

    def url(self, node):
        return node.url(iqn("t"))

    def establish(self):
        self.start(self.alpha)
        self.start(self.beta)
        self.alpha.establish("vol", "beta", MIRROR_SECONDS)
        self.wait_mirrored(self.alpha)

    def wait_mirrored(self, primary):
        secondary = self.beta if primary is self.alpha else self.alpha

        def mirrored():
            here, there = primary.pair("vol"), secondary.pair("vol")
            both = here["state"] == there["state"] == "mirrored" and here["connected"] and there["connected"]
            return both and here["role"] == "primary" and there["role"] == "secondary"
        wait_until(mirrored, MIRROR_SECONDS, "both are mirrored and connected")

    def cut(self):
        for proxy in self.proxies:
            proxy.cut()

    def heal(self):
        for proxy in self.proxies:
            proxy.heal()
