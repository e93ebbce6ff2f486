# SPDX-License-Identifier: Apache-2.0
"""tools/install-deps on machines that lack packages: a stand-in for dpkg-query knows only some of them."""
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "install-deps"


class InstallDeps(unittest.TestCase):
    def check(self, dpkg_query):
        """Runs `install-deps --check` with this shell text as dpkg-query."""
        with tempfile.TemporaryDirectory(prefix="gemel-deps-") as folder:
            stand_in = Path(folder) / "dpkg-query"
            stand_in.write_text("#!/bin/bash\n" + dpkg_query)
            stand_in.chmod(0o755)
            environment = dict(os.environ, PATH=f"{folder}:{os.environ['PATH']}")
            return subprocess.run([SCRIPT, "--check"], env=environment, capture_output=True, text=True, timeout=60)

    def test_a_package_that_dpkg_has_never_heard_of_is_missing(self):
        done = self.check("""
            for name in "$@"; do
              case $name in
                -W | -f | *Package*) ;;
                clang-19) echo "dpkg-query: no packages found matching clang-19" >&2; failed=1 ;;
                *) echo "installed $name" ;;
              esac
            done
            exit ${failed:-0}
            """)
        self.assertEqual(done.returncode, 1, done)
        self.assertIn("missing: clang-19\n", done.stderr)

    def test_a_package_that_was_removed_but_not_purged_is_missing(self):
        done = self.check("""
            for name in "${@:4}"; do
              [ "$name" = tgt ] && echo "config-files tgt" || echo "installed $name"
            done
            """)
        self.assertEqual(done.returncode, 1, done)
        self.assertIn("missing: tgt\n", done.stderr)

    def test_nothing_is_missing_when_all_are_installed(self):
        done = self.check('for name in "${@:4}"; do echo "installed $name"; done\n')
        self.assertEqual(done.returncode, 0, done)


if __name__ == "__main__":
    unittest.main()
