# SPDX-License-Identifier: Apache-2.0
"""tgt (the Linux SCSI target framework) on loopback, to compare with: one LUN on a file in memory.

It runs in the foreground with its own port, control number and control socket, so that one already running on the
machine is neither used nor disturbed.
"""
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from lab.daemon import free_port, in_use, run, wait_until

IQN = "iqn.2026-11.dev.gemel:reference"


class ReferenceTarget:
    def __init__(self, size_bytes):
        self.folder = Path(tempfile.mkdtemp(prefix="gemel-tgt-"))
        self.image = Path(tempfile.mkstemp(prefix="gemel-tgt-", suffix=".img", dir="/dev/shm")[1])
        os.truncate(self.image, size_bytes)
        self.port = free_port()
        self.control = os.getpid() % 30000 + 1
        self.environment = dict(os.environ, TGT_IPC_SOCKET=str(self.folder / "socket"))
        self.process = None

    @property
    def pid(self):
        return self.process.pid

    @property
    def url(self):
        return f"iscsi://127.0.0.1:{self.port}/{IQN}/1"

    def start(self):
        command = ["tgtd", "-f", "-C", str(self.control), "--iscsi", f"portal=127.0.0.1:{self.port}"]
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                            env=self.environment, start_new_session=True)
        wait_until(lambda: in_use(f"127.0.0.1:{self.port}") or self.process.poll() is not None, 10, "tgtd listens")
        if self.process.poll() is not None:
            raise RuntimeError("tgtd ended: " + (self.folder / "log").read_text())
        self._admin("target", "new", "--tid", "1", "--targetname", IQN)
        # Reads and writes of a file in /dev/shm, the fastest store of tgt that keeps data.
        self._admin("logicalunit", "new", "--tid", "1", "--lun", "1", "--backing-store", str(self.image))
        self._admin("target", "bind", "--tid", "1", "--initiator-address", "ALL")
        return self

    def _admin(self, mode, operation, *arguments):
        run(["tgtadm", "-C", str(self.control), "--lld", "iscsi", "--mode", mode, "--op", operation, *arguments],
            env=self.environment)

    def stop(self):
        """tgtd ignores SIGTERM while it has targets, so it is killed by its pid; it keeps nothing worth a clean end."""
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.image.unlink(missing_ok=True)
