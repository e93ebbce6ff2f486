#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""iscsi-test-cu (libiscsi-bin), one case at a time, against a gemeld started here; compared with expected.txt.

    conformance_test.py                   the memory LUN
    conformance_test.py --kind raid5      another kind of LUN (memory, raid5, digest)
    conformance_test.py --all             all kinds, as tools/test --long does
    conformance_test.py --accept          write what was found into expected.txt, if nothing got worse

expected.txt only improves: a case that gets worse than its line (pass > skip > fail) fails the test, one that gets
better asks for --accept. A case that hangs or ends the daemon is a failure.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from lab.daemon import Daemon, run  # noqa: E402

HERE = Path(__file__).resolve().parent
EXPECTED = HERE / "expected.txt"
CASE_SECONDS = 60
# Said before and after every case, when the suite tries to remove reservations that nobody can have made.
CLEANING = "[SKIPPED] PERSISTENT RESERVE IN is not implemented."
RANK = {"fail": 0, "skip": 1, "pass": 2}
IQN = "iqn.2026-11.dev.gemel:conformance"
INITIATORS = ("iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-test",
              "iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-test-2")

MEMORY = 'level = "0"\nmembers = [{kind = "memory", size = "64MiB"}]'
FILES = 'level = "5"\nstrip = "16KiB"\nmembers = [' + ", ".join(
    f'{{kind = "file", path = "member{i}", size = "48MiB"}}' for i in range(5)) + "]"
# kind: (array, text after the URL)
KINDS = {"memory": (MEMORY, ""), "raid5": (FILES, ""), "digest": (MEMORY, "?header_digest=crc32c")}


def config_of(kind):
    allowed = ", ".join(f'"{i}"' for i in INITIATORS)
    return f"""[[array]]
name = "a"
create = true
{KINDS[kind][0]}
[[volume]]
name = "v"
array = "a"
size = "60MiB"
[[target]]
iqn = "{IQN}"
luns = [{{lun = 0, volume = "v"}}]
allowed_initiators = [{allowed}]
"""


def all_cases():
    listed = run(["iscsi-test-cu", "--list"]).stdout.split()
    return [c for c in listed if c.startswith("ALL.") and c.count(".") == 2]


def read_expected():
    rows = {}
    for line in EXPECTED.read_text().splitlines() if EXPECTED.exists() else []:
        if line and not line.startswith("#"):
            result, case = line.split()
            rows[case] = result
    return rows


class Suite:
    def __init__(self, kind):
        self.kind = kind
        self.folder = Path(tempfile.mkdtemp(prefix="gemel-conformance-"))
        (self.folder / "c.toml").write_text(config_of(kind))
        self.daemon = Daemon(self.folder / "c.toml", self.folder / "state", portal="127.0.0.1:0")
        self.why = {}

    def run(self, cases):
        """{case: result}; what was said about those that did not pass is in .why."""
        self.daemon.start()
        results = {}
        try:
            for case in cases:
                results[case] = self.run_one(case)
        finally:
            if self.daemon.alive():
                self.daemon.stop()
            report = self.daemon.sanitizer_report()
            if report:
                print(report)
                results["the daemon itself"] = "fail"
                self.why["the daemon itself"] = report.splitlines()[0]
            shutil.rmtree(self.folder, ignore_errors=True)
        return results

    def run_one(self, case):
        url = self.daemon.url(IQN) + KINDS[self.kind][1]
        command = ["iscsi-test-cu", "-d", "-n", "-i", INITIATORS[0], "-I", INITIATORS[1], "-t", case, url]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=CASE_SECONDS, check=False,
                                  stdin=subprocess.DEVNULL, cwd=self.folder, errors="replace")
            code, text = done.returncode, done.stdout + done.stderr
        except subprocess.TimeoutExpired:
            code, text = -1, f"hung for {CASE_SECONDS} s"
        if not self.daemon.alive():
            self.why[case] = "the daemon ended: " + (self.daemon.sanitizer_report() or "no report")
            self.daemon.start()
            return "fail"
        cleaning = () if case.startswith(("ALL.Prin", "ALL.Prout")) else (CLEANING,)
        said = [l.strip() for l in text.splitlines() if l.strip() not in cleaning]
        notes = [l for l in said if any(m in l for m in ("[SKIPPED]", "[FAILED]", "CU_", "hung"))]
        result = "fail" if code != 0 else "skip" if any("[SKIPPED]" in l for l in said) else "pass"
        if result != "pass":
            self.why[case] = notes[0] if notes else f"exit code {code}"
        return result


def report(kind, results, why):
    for result in ("pass", "skip", "fail"):
        cases = sorted(c for c, r in results.items() if r == result)
        print(f"\n{kind}: {result} {len(cases)}")
        for case in cases:
            print(f"  {case}" + (f"  ({why[case]})" if case in why else ""))


def compare(kind, results, expected):
    """(worse, better), as lines of text."""
    worse, better = [], []
    for case, result in sorted(results.items()):
        before = expected.get(case)
        if before is None:
            (worse if result == "fail" else better).append(f"{kind}: {case}: {result}, not in expected.txt")
        elif RANK[result] < RANK[before]:
            worse.append(f"{kind}: {case}: {result}, expected {before}")
        elif RANK[result] > RANK[before]:
            better.append(f"{kind}: {case}: {result}, expected {before}")
    return worse, better


def accept(results):
    counts = {r: sum(1 for v in results.values() if v == r) for r in ("pass", "skip", "fail")}
    lines = ["# What iscsi-test-cu 1.19 says of each case; written by conformance_test.py --accept. It only improves.",
             f"# {counts['pass']} pass, {counts['skip']} skip, {counts['fail']} fail"]
    lines += [f"{result} {case}" for case, result in sorted(results.items())]
    EXPECTED.write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS, default="memory")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--accept", action="store_true")
    parser.add_argument("--case", action="append", help="only these cases")
    arguments = parser.parse_args()
    kinds = list(KINDS) if arguments.all or os.environ.get("GEMEL_LONG") else [arguments.kind]
    cases = arguments.case or all_cases()
    expected = read_expected()
    worse, better = [], []
    suites = {k: Suite(k) for k in kinds}
    with ThreadPoolExecutor(max_workers=2) as pool:
        found = dict(zip(suites, pool.map(lambda s: s.run(cases), suites.values())))
    for kind, results in found.items():
        report(kind, results, suites[kind].why)
        more = compare(kind, results, expected)
        worse += more[0]
        better += more[1]
    print("\n" + "\n".join(f"better: {b}; run {Path(__file__).name} --accept" for b in better))
    print("\n".join(f"WORSE: {w}" for w in worse))
    if arguments.accept and not arguments.case and (not worse or not expected):
        accept(found[kinds[0]])
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
