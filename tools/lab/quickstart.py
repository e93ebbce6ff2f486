#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The main job, on real input: a mirrored pair on loopback, a cut cable, a killed node, a promotion and a return.

Run by tools/quickstart, which installs and builds first. Each step is a method of Story and a row of STEPS; it returns
what it saw, for the table at the end, or raises. After a step that fails the others are not run.
"""
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lab.daemon import Daemon, TOP, free_port, in_use, run, wait_until  # noqa: E402
from lab.initiator import compare_image, read_image, write_image  # noqa: E402
from lab.image import add_file, changed_extents, make_image, write_extents  # noqa: E402

MIB = 1 << 20
MIRRORED_SECONDS = 300
PIDS = "pids"


class Story:
    def __init__(self, folder, once):
        self.folder = folder
        self.once = once
        self.image = folder / "image.raw"
        self.cable = None
        self.nodes = {}
        self.volume = self.iqn = None

    @property
    def alpha(self):
        return self.nodes["alpha"]

    @property
    def beta(self):
        return self.nodes["beta"]

    def ports(self):
        """The ports of conf/, or free ones where they are taken; every "127.0.0.1:PORT" of the two files is mapped."""
        texts = {n: (TOP / "conf" / f"{n}.toml").read_text() for n in ("alpha", "beta")}
        wanted = sorted(set(re.findall(r"127\.0\.0\.1:\d+", "".join(texts.values()))))
        taken = [a for a in wanted if in_use(a)]
        if taken:
            print(f"quickstart: {', '.join(taken)} in use by another process; taking free ports instead")
        moved = {a: f"127.0.0.1:{free_port()}" if self.once or taken else a for a in wanted}
        return {n: re.sub(r"127\.0\.0\.1:\d+", lambda m: moved[m.group(0)], t) for n, t in texts.items()}

    def start(self):
        """Both nodes, and the cable between them: what alpha dials is a proxy that can be cut."""
        texts = self.ports()
        parsed = {n: tomllib.loads(t) for n, t in texts.items()}
        cables = []
        for node, other in (("alpha", "beta"), ("beta", "alpha")):
            cable = f"127.0.0.1:{free_port()}"
            address = parsed[other]["replication"]["listen"]
            texts[node] = re.sub(r'(\[\[peer\]\][^\[]*address\s*=\s*)"[^"]*"', rf'\1"{cable}"', texts[node])
            cables += [cable, address]
        self.cable = subprocess.Popen([sys.executable, str(TOP / "tools/lab/proxy.py"), *cables],
                                      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL, start_new_session=True)
        for node, text in texts.items():
            config = self.folder / f"{node}.toml"
            config.write_text(text)
            self.nodes[node] = Daemon(config, self.folder / node).start()
        self.volume = parsed["alpha"]["volume"][0]["name"]
        self.iqn = {n: parsed[n]["target"][0]["iqn"] for n in parsed}
        self.remember()
        array = parsed["alpha"]["array"][0]
        return f"RAID-{array['level']} of {len(array['members'])} file members each"

    def remember(self):
        running = [d.pid for d in self.nodes.values() if d.alive()] + ([self.cable.pid] if self.cable else [])
        (self.folder / PIDS).write_text("\n".join(map(str, running)))

    def url(self, node):
        return self.nodes[node].url(self.iqn[node])

    def wait_mirrored(self, node, role):
        def mirrored():
            pair = self.nodes[node].pair(self.volume)
            return pair["state"] == "mirrored" and pair["role"] == role and pair["connected"]
        wait_until(mirrored, MIRRORED_SECONDS, f"{node} is a mirrored {role}")

    def wait_idle(self):
        wait_until(lambda: self.alpha.pair(self.volume)["region_bytes"] == 0, 30, "alpha's open regions are cleared")

    def establish(self):
        self.alpha.establish(self.volume, "beta", MIRRORED_SECONDS)
        self.wait_mirrored("alpha", "primary")
        self.wait_mirrored("beta", "secondary")
        return f"volume {self.volume}: alpha primary, beta secondary"

    def make(self):
        source = make_image(self.image, min(512 * MIB, self.alpha.pair(self.volume)["bytes"]))
        return f"{source}, {self.image.stat().st_size // MIB} MiB"

    def write(self):
        write_image(self.image, self.url("alpha"))
        if not compare_image(self.image, self.url("alpha")):
            raise AssertionError("alpha's LUN does not hold the image")
        return "qemu-img convert, qemu-img compare: equal"

    def standby(self):
        done = run(["qemu-img", "info", "-f", "raw", self.url("beta")], check=False)
        if done.returncode == 0 or "NOT_READY" not in done.stderr.replace(" ", "_"):
            raise AssertionError(f"beta did not answer NOT READY although it is the secondary: {done.stderr.strip()}")
        return "beta refuses: target port in standby state"

    def change(self, node, name, source):
        """Adds a real file to the image and writes only what changed through a node's LUN; (bytes, seconds)."""
        before = self.image.with_suffix(".before")
        shutil.copy(self.image, before)
        add_file(self.image, source, name)
        extents = changed_extents(before, self.image)
        began = time.monotonic()
        write_extents(self.image, extents, self.url(node))
        return sum(length for _, length in extents), time.monotonic() - began

    def cut(self):
        self.wait_idle()
        os.kill(self.cable.pid, signal.SIGUSR1)
        written, seconds = self.change("alpha", "written-while-cut", TOP / "LICENSE")
        if seconds > 12:
            raise AssertionError(f"the host waited {seconds:.1f} s for a peer that is gone; 10 s is the limit")
        pair = wait_until(lambda: (p := self.alpha.pair(self.volume))["dirty_bytes"] > 0 and p, 15, "tracks recorded")
        self.changed_tracks = pair["dirty_bytes"]
        return f"{written // 1024} KiB written, waited {seconds:.1f} s; {pair['dirty_bytes'] // 1024} KiB of tracks"

    def heal(self):
        before = self.alpha.pair(self.volume)["resync_bytes_sent"]
        os.kill(self.cable.pid, signal.SIGUSR2)
        self.wait_mirrored("alpha", "primary")
        sent = self.alpha.pair(self.volume)["resync_bytes_sent"] - before
        if not 0 < sent <= self.changed_tracks:
            raise AssertionError(f"{sent} bytes were sent for {self.changed_tracks} bytes of changed tracks")
        size = self.alpha.pair(self.volume)["bytes"]
        return f"{sent // 1024} KiB sent of a volume of {size // MIB} MiB"

    def kill(self):
        self.alpha.kill()
        self.remember()
        return "SIGKILL"

    def promote_beta(self):
        wait_until(lambda: not self.beta.pair(self.volume)["connected"], 15, "beta sees that alpha is gone")
        refused = self.beta.gemel("promote", self.volume, check=False)
        if refused.returncode != 6:
            raise AssertionError(f"promote without contact ended with {refused.returncode}, not 6 (needs --force)")
        self.beta.gemel("promote", self.volume, "--force")
        return "refused without --force (alpha may be alive), done with it"

    def check(self, node):
        copy = self.folder / f"from-{node}.raw"
        read_image(self.url(node), copy)
        with open(copy, "rb") as a, open(self.image, "rb") as b:
            while piece := b.read(MIB):
                if a.read(len(piece)) != piece:
                    raise AssertionError(f"{node}'s LUN differs from the image near byte {b.tell() - len(piece)}")
        os.truncate(copy, self.image.stat().st_size)
        run(["e2fsck", "-fn", copy])
        copy.unlink()
        return "every byte equal; e2fsck -fn: clean"

    def check_beta(self):
        return self.check("beta")

    def write_beta(self):
        written, seconds = self.change("beta", "written-to-beta", TOP / "README.md")
        return f"{written // 1024} KiB in {seconds:.1f} s"

    def start_alpha(self):
        self.alpha.start()
        self.remember()
        self.wait_mirrored("alpha", "secondary")
        self.wait_mirrored("beta", "primary")
        sent = self.beta.pair(self.volume)["resync_bytes_sent"]
        return f"secondary, caught up with {sent // 1024} KiB"

    def promote_alpha(self):
        self.alpha.gemel("promote", self.volume)
        self.wait_mirrored("alpha", "primary")
        self.wait_mirrored("beta", "secondary")
        return "alpha primary, beta secondary again"

    def check_alpha(self):
        return self.check("alpha")

    def stop(self):
        for daemon in self.nodes.values():
            if daemon.alive():
                daemon.stop()
        if self.cable is not None and self.cable.poll() is None:
            self.cable.terminate()
            self.cable.wait(10)
        (self.folder / PIDS).unlink(missing_ok=True)


STEPS = (
    ("start alpha and beta", Story.start),
    ("establish the mirror", Story.establish),
    ("make an ext4 image of real files", Story.make),
    ("write it through alpha's LUN", Story.write),
    ("the secondary does not serve", Story.standby),
    ("cut the link, write more", Story.cut),
    ("heal it: only changed tracks", Story.heal),
    ("kill alpha", Story.kill),
    ("promote beta", Story.promote_beta),
    ("read back from beta, compare", Story.check_beta),
    ("write to beta", Story.write_beta),
    ("start alpha again", Story.start_alpha),
    ("promote alpha", Story.promote_alpha),
    ("read back from alpha, compare", Story.check_alpha),
)


def tell(story):
    """Runs the steps; rows of (mark, step, seconds, what was seen)."""
    rows = [("ok", "install", int(os.environ.get("GEMEL_INSTALL_SECONDS", "0")), "Debian packages"),
            ("ok", "build", int(os.environ.get("GEMEL_BUILD_SECONDS", "0")), "release preset")]
    for name, step in STEPS:
        began = time.monotonic()
        print(f"quickstart: {name} ...", flush=True)
        try:
            seen, mark = step(story), "ok"
        except Exception as error:  # whatever went wrong belongs into the table
            seen, mark = str(error).strip() or repr(error), "FAIL"
        rows.append((mark, name, time.monotonic() - began, seen))
        if mark != "ok":
            break
    done = len(rows) - 2
    return rows + [("-", name, 0, "not reached") for name, _ in STEPS[done:]]


def show(rows):
    print()
    width = max(len(r[1]) for r in rows)
    for mark, name, seconds, seen in rows:
        print(f"{mark:<4}  {name:<{width}}  {seconds:6.1f} s  {seen}")
    print()


def how_to_look(story):
    gemel = f"{os.environ['GEMEL_BIN']}/gemel"
    for node in ("alpha", "beta"):
        if node in story.nodes and story.nodes[node].alive():
            print(f"{node}: pid {story.nodes[node].pid}, {story.url(node)}, log {story.nodes[node].log}")
    print(f"""
Look at it:
  {gemel} --state-dir {story.folder}/alpha mirror status --watch
  {gemel} --state-dir {story.folder}/beta status
  {gemel} --state-dir {story.folder}/alpha events --follow
Stop it:
  tools/quickstart --stop""")


def stop_left_running(folder):
    """Ends the processes of an earlier run by the ids it wrote down; the text of what was done."""
    pids = folder / PIDS
    if not pids.exists():
        return "nothing was left running"
    ended = []
    for pid in (int(p) for p in pids.read_text().split()):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in command or b"proxy.py" in command:
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda p=pid: not Path(f"/proc/{p}").exists(), 30, f"process {pid} ends")
            ended.append(str(pid))
    pids.unlink()
    return f"stopped {', '.join(ended)}" if ended else "nothing was left running"


def main():
    once = "--once" in sys.argv[1:]
    base = Path(os.environ.get("GEMEL_QUICKSTART_DIR", TOP / "build" / "quickstart")).resolve()
    folder = base / f"once-{os.getpid()}" if once else base / "pair"
    if "--stop" in sys.argv[1:]:
        print(f"quickstart: {stop_left_running(folder)}")
        return 0
    if not once:
        print(f"quickstart: {stop_left_running(folder)}") if (folder / PIDS).exists() else None
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    story = Story(folder, once)
    rows = tell(story)
    show(rows)
    held = all(r[0] == "ok" for r in rows)
    if once:
        story.stop()
        logs = [d.log for d in story.nodes.values()]
        if held:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print("quickstart: logs are " + ", ".join(map(str, logs)))
        return 0 if held else 1
    how_to_look(story)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
