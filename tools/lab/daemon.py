# SPDX-License-Identifier: Apache-2.0
"""gemeld and gemel as processes: start, wait until it listens, stop, kill, ask. Every wait is bounded.

Processes are only ever ended by the pid that was started here.
"""
import json
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
START_SECONDS = 30
STOP_SECONDS = 30


class Refused(Exception):
    """The daemon ended instead of listening; `code` is its exit code, `text` what it wrote to stderr."""

    def __init__(self, code, text):
        super().__init__(f"gemeld ended with code {code}: {text.strip()[-2000:]}")
        self.code = code
        self.text = text


class CommandFailed(Exception):
    def __init__(self, command, code, output, errors):
        super().__init__(f"{' '.join(map(str, command))} ended with code {code}: {errors.strip()} {output.strip()}")
        self.code = code
        self.output = output
        self.errors = errors


def binaries():
    """The directory of gemeld, gemel and loadgen: $GEMEL_BIN, else the first preset that was built."""
    if "GEMEL_BIN" in os.environ:
        return Path(os.environ["GEMEL_BIN"])
    for preset in ("release", "dev", "asan"):
        if (TOP / "build" / preset / "bin" / "gemeld").exists():
            return TOP / "build" / preset / "bin"
    raise FileNotFoundError("gemeld is not built; run: cmake --preset release && cmake --build --preset release")


def free_port():
    """Below those that the system gives to whoever connects: nobody has it by chance when it is listened on later."""
    while True:
        port = random.randrange(10240, 32768)
        if not in_use(f"127.0.0.1:{port}"):
            return port


def in_use(address):
    """True if something listens at "host:port"."""
    host, port = address.rsplit(":", 1)
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex((host, int(port))) == 0


def wait_until(condition, seconds, what):
    """Polls `condition` until it gives something true, which is returned; else raises TimeoutError naming `what`."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.05)


def run(command, seconds=60, check=True, env=None):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=seconds, check=False,
                          stdin=subprocess.DEVNULL, env=env, errors="replace")
    if check and done.returncode != 0:
        raise CommandFailed(command, done.returncode, done.stdout, done.stderr)
    return done


class Daemon:
    """One gemeld with its state directory."""

    def __init__(self, config, state_dir, portal=None, log=None, extra=()):
        self.config = Path(config)
        self.state_dir = Path(state_dir)
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self.portal = portal  # "127.0.0.1:0" replaces the configured portals; the real one is in .address afterwards
        self.log = Path(log) if log else self.state_dir.with_name(self.state_dir.name + ".log")
        self.extra = list(extra)
        self.address = None
        self.process = None
        self._ready = threading.Event()

    @property
    def pid(self):
        return self.process.pid

    def start(self, seconds=START_SECONDS):
        """Starts and waits until all portals listen. Raises Refused if it ends instead."""
        command = [binaries() / "gemeld", "--config", self.config, "--state-dir", self.state_dir, *self.extra]
        if self.portal:
            command += ["--portal", self.portal]
        self._ready.clear()
        with open(self.log, "ab") as log:
            log_start = log.tell()
            self.process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=log,
                                            stdin=subprocess.DEVNULL, start_new_session=True)
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()
        deadline = time.monotonic() + seconds
        while not self._ready.wait(0.02):
            if self.process.poll() is not None:
                raise Refused(self.process.returncode, self.log_text(log_start))
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"gemeld did not listen within {seconds} s: {self.log_text(log_start)[-2000:]}")
        return self

    def _read(self, process):
        with process.stdout as lines:
            for line in lines:
                match = re.search(rb"listening on (\S+:\d+)", line)
                if match:
                    self.address = match.group(1).decode().rstrip(",")
                    self._ready.set()

    def log_text(self, start=0):
        with open(self.log, "rb") as log:
            log.seek(start)
            return log.read().decode("utf-8", "replace")

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        os.kill(self.process.pid, number)

    def kill(self):
        """SIGKILL, then waits until the process is gone."""
        if self.alive():
            self.signal(signal.SIGKILL)
        self.process.wait(STOP_SECONDS)

    def stop(self, seconds=STOP_SECONDS):
        """SIGTERM; returns the exit code. Kills and raises if it does not end."""
        if self.alive():
            self.signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"gemeld did not stop within {seconds} s of SIGTERM") from None

    def gemel(self, *arguments, seconds=60, check=True):
        """Runs the admin command against this daemon."""
        command = [binaries() / "gemel", "--state-dir", self.state_dir, *arguments]
        return run(command, seconds=seconds, check=check)

    def ask(self, *arguments, seconds=60):
        """The same with --json, decoded."""
        return json.loads(self.gemel(*arguments, "--json", seconds=seconds).stdout)

    def pair(self, volume):
        """Mirror status of one volume, as a dictionary."""
        answer = self.ask("mirror", "status", volume)
        rows = answer if isinstance(answer, list) else answer.get("pairs", [answer])
        return next(r for r in rows if r["volume"] == volume)

    def establish(self, volume, peer, seconds=300):
        """Mirrors a volume and waits until it is. Tries again while the nodes have not met yet (exit code 5)."""
        def tried():
            done = self.gemel("mirror", "establish", volume, "--peer", peer, "--wait", seconds=seconds, check=False)
            if done.returncode not in (0, 5):
                raise CommandFailed(done.args, done.returncode, done.stdout, done.stderr)
            return done.returncode == 0
        wait_until(tried, 20, f"{peer} can be reached")

    def url(self, iqn, lun=0):
        return f"iscsi://{self.address}/{iqn}/{lun}"

    def sanitizer_report(self):
        """What a sanitizer or a CHECK said, or an empty string."""
        marks = ("ERROR: AddressSanitizer", "runtime error:", "LeakSanitizer", "ThreadSanitizer", "CHECK failed",
                 "terminate called")
        text = self.log_text()
        found = [l for l in text.splitlines() if any(m in l for m in marks)]
        return "\n".join(found[:5]) if found else ""


def cpu_ticks(pid):
    """User and system time of a process so far, in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return int(fields[11]) + int(fields[12])
