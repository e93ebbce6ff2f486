#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The quickstart's whole story holds with the binaries under test."""
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


class Quickstart(unittest.TestCase):
    def test_every_step_of_the_quickstart_holds(self):
        with tempfile.TemporaryDirectory(prefix="gemel-qs-") as folder:
            environment = dict(os.environ, GEMEL_QUICKSTART_DIR=folder)
            done = subprocess.run([sys.executable, str(TOP / "tools/lab/quickstart.py"), "--once"], check=False,
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=800,
                                  env=environment)
            print(done.stdout)
            logs = "".join(p.read_text(errors="replace")[-3000:] for p in Path(folder).glob("*/*.log"))
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr + logs)
            self.assertEqual(list(Path(folder).iterdir()), [], "nothing is left behind")


if __name__ == "__main__":
    unittest.main()
