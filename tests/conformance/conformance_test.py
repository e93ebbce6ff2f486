#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""iscsi-test-cu (libiscsi-bin), one case at a time, against a gemeld started here; compared with expected.txt.

    conformance_test.py                   every case on the plain LUN, and what other kinds of LUN unlock on those
    conformance_test.py --kind thin       every case on another kind of LUN
    conformance_test.py --all             every case on every kind, as tools/test --long does
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
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from lab.daemon import Daemon, run  # noqa: E402

HERE = Path(__file__).resolve().parent
EXPECTED = HERE / "expected.txt"
CASE_SECONDS = 180  # Unmap.Simple sends 32,000 extents
RANK = {"fail": 0, "skip": 1, "pass": 2}
IQN = "iqn.2026-11.dev.gemel:conformance"
INITIATORS = ("iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-test",
              "iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-test-2")

MEMORY = 'level = "0"\nmembers = [{kind = "memory", size = "64MiB"}]'
FILES = 'level = "5"\nstrip = "16KiB"\nmembers = [' + ", ".join(
    f'{{kind = "file", path = "member{i}", size = "48MiB"}}' for i in range(5)) + "]"


@dataclass(frozen=True)
class Kind:
    array: str = MEMORY
    lun: str = ""  # more keys of the LUN
    url: str = ""  # text after the URL
    chap: bool = False  # logins need a name and a secret, and the target proves itself too
    two_paths: bool = False  # the unit as a LUN of a second target, too, whose URL the suite is given
    quick: tuple[str, ...] = ()  # the suites that the short run tries on this kind
    only: tuple[str, ...] = ()  # those that make sense on it, if not all


THIN = "thin = true"
KINDS = {
    "full": Kind(),
    "thin": Kind(lun=THIN, quick=("Unmap", "WriteSame10", "WriteSame16", "GetLBAStatus", "CompareAndWrite", "Inquiry",
                                  "ReadCapacity16")),
    "thin4k": Kind(lun=THIN + ", block_size = 4096", quick=("Unmap", "WriteSame16", "GetLBAStatus", "OrWrite")),
    "readonly": Kind(lun="read_only = true, " + THIN, quick=("ReadOnly",), only=(
        "ReadOnly", "Read6", "Read10", "Read12", "Read16", "ReadCapacity10", "ReadCapacity16", "Inquiry", "Mandatory",
        "TestUnitReady", "ReportSupportedOpcodes", "Prefetch10", "Prefetch16")),
    "removable": Kind(lun="removable = true, " + THIN, quick=("PreventAllow", "StartStopUnit", "NoMedia")),
    "paths": Kind(two_paths=True, quick=("MultipathIO", "ProutReserve")),
    "raid5": Kind(array=FILES + "\nthin = true", lun=THIN),
    "digest": Kind(url="?header_digest=crc32c"),
    "chap": Kind(chap=True, quick=("TestUnitReady", "Mandatory", "Inquiry", "Reserve6")),
}


USER, SECRET, OWN, OWN_SECRET = "host", "a-secret-for-tests", "gemel", "what-it-answers"
SECRETS = f"""[[user]]
name = "{USER}"
secret = "{SECRET}"
[[own]]
name = "{OWN}"
secret = "{OWN_SECRET}"
"""
CHAP = f"""chap_users = ["{USER}"]
chap_own = "{OWN}"
[chap]
secrets = "secrets"
"""


def config_of(kind):
    allowed = ", ".join(f'"{i}"' for i in INITIATORS)
    more = ", " + KINDS[kind].lun if KINDS[kind].lun else ""
    targets = "".join(f"""[[target]]
iqn = "{iqn}"
luns = [{{lun = 0, volume = "v"{more}}}]
allowed_initiators = [{allowed}]
""" for iqn in ((IQN, IQN + "2") if KINDS[kind].two_paths else (IQN,)))
    targets += CHAP if KINDS[kind].chap else ""
    return f"""[[array]]
name = "a"
create = true
{KINDS[kind].array}
[[volume]]
name = "v"
array = "a"
size = "60MiB"
{targets}"""


def all_cases():
    listed = run(["iscsi-test-cu", "--list"]).stdout.split()
    return [c for c in listed if c.startswith("ALL.") and c.count(".") == 2]


def read_expected():
    """{kind: {case: result}}; a line without a kind holds for every kind that has none of its own."""
    rows = {kind: {} for kind in KINDS}
    own = {}
    for line in EXPECTED.read_text().splitlines() if EXPECTED.exists() else []:
        if line and not line.startswith("#"):
            result, case, *kind = line.split()
            own[(kind[0], case) if kind else case] = result
    for kind in KINDS:
        for case in {c if isinstance(c, str) else c[1] for c in own}:
            rows[kind][case] = own.get((kind, case), own.get(case))
    return rows


class Suite:
    def __init__(self, kind):
        self.kind = kind
        self.folder = Path(tempfile.mkdtemp(prefix="gemel-conformance-"))
        (self.folder / "c.toml").write_text(config_of(kind))
        self.daemon = Daemon(self.folder / "c.toml", self.folder / "state", portal="127.0.0.1:0")
        (self.folder / "state" / "secrets").write_text(SECRETS)
        (self.folder / "state" / "secrets").chmod(0o600)
        self.environment = os.environ | ({"LIBISCSI_CHAP_TARGET_USERNAME": OWN,
                                          "LIBISCSI_CHAP_TARGET_PASSWORD": OWN_SECRET} if KINDS[kind].chap else {})
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
        kind = KINDS[self.kind]
        urls = [self.daemon.url(IQN) + kind.url] + ([self.daemon.url(IQN + "2")] if kind.two_paths else [])
        if kind.chap:
            urls = [u.replace("iscsi://", f"iscsi://{USER}%{SECRET}@") for u in urls]
        command = ["iscsi-test-cu", "-d", "-S", "-n", "-i", INITIATORS[0], "-I", INITIATORS[1], "-t", case, *urls]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=CASE_SECONDS, check=False,
                                  stdin=subprocess.DEVNULL, cwd=self.folder, errors="replace", env=self.environment)
            code, text = done.returncode, done.stdout + done.stderr
        except subprocess.TimeoutExpired:
            code, text = -1, f"hung for {CASE_SECONDS} s"
        if not self.daemon.alive():
            self.why[case] = "the daemon ended: " + (self.daemon.sanitizer_report() or "no report")
            self.daemon.start()
            return "fail"
        said = [l.strip() for l in text.splitlines()]
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


def accept(found):
    """Rows of the plain LUN, and of each other kind those that differ."""
    plain = found["full"]
    lines = ["# What iscsi-test-cu 1.19 says of each case; written by conformance_test.py --accept. It only improves.",
             "# A third column names the kind of LUN that the line is about."]
    for kind, results in found.items():
        counts = {r: sum(1 for v in results.values() if v == r) for r in ("pass", "skip", "fail")}
        lines.append(f"# {kind}: {counts['pass']} pass, {counts['skip']} skip, {counts['fail']} fail")
    lines += [f"{result} {case}" for case, result in sorted(plain.items())]
    for kind, results in found.items():
        lines += [f"{result} {case} {kind}" for case, result in sorted(results.items()) if plain.get(case) != result]
    EXPECTED.write_text("\n".join(lines) + "\n")


def plan_of(arguments):
    """{kind: cases}: all cases of the kinds that were asked for; else of the plain LUN all, of others their own."""
    cases = arguments.case or all_cases()
    if arguments.all or os.environ.get("GEMEL_LONG"):
        return {kind: [c for c in cases if not row.only or c.split(".")[1] in row.only] for kind, row in KINDS.items()}
    if arguments.kind or arguments.case:
        return {arguments.kind or "full": cases}
    own = {kind: [c for c in cases if c.split(".")[1] in row.quick] for kind, row in KINDS.items() if row.quick}
    return {"full": cases} | own


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--accept", action="store_true", help="with --all")
    parser.add_argument("--case", action="append", help="only these cases")
    arguments = parser.parse_args()
    plan = plan_of(arguments)
    expected = read_expected()
    worse, better = [], []
    suites = {kind: Suite(kind) for kind in plan}
    with ThreadPoolExecutor(max_workers=2) as pool:
        found = dict(zip(suites, pool.map(lambda s: s.run(plan[s.kind]), suites.values())))
    for kind, results in found.items():
        report(kind, results, suites[kind].why)
        more = compare(kind, results, expected[kind])
        worse += more[0]
        better += more[1]
    print("\n" + "\n".join(f"better: {b}; run {Path(__file__).name} --all --accept" for b in better))
    print("\n".join(f"WORSE: {w}" for w in worse))
    if arguments.accept and arguments.all and not arguments.case and (not worse or not EXPECTED.exists()):
        accept(found)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
