# SPDX-License-Identifier: Apache-2.0
"""Real ext4 images: made from a directory of real files, changed as a file system changes, written piece by piece."""
import os
from pathlib import Path

from lab.daemon import run

BLOCK = 4096
MIB = 1 << 20
SOURCES = ("/usr/share/doc", "/usr/include", "/usr/share/perl5", "/usr/share")


def room_for(folder, limit):
    """Bytes of an image that holds the files below a folder with some room, counted up to a limit."""
    total = 32 * MIB
    for where, _, names in os.walk(folder):
        total += sum((os.lstat(os.path.join(where, n)).st_size + 2 * BLOCK) * 9 // 8 for n in names)
        if total > limit:
            break
    return -(-total // MIB) * MIB


def make_image(image, limit_bytes):
    """mkfs.ext4 -d of the first directory of this machine whose image is not tiny and fits; returns its name."""
    for source in SOURCES:
        size = room_for(source, limit_bytes) if Path(source).is_dir() else 0
        if 64 * MIB < size <= limit_bytes:
            break
    else:
        source, size = str(Path(__file__).resolve().parents[2] / "include"), 64 * MIB
    image.unlink(missing_ok=True)
    run(["truncate", "-s", size, image])
    run(["mkfs.ext4", "-q", "-F", "-d", source, image], seconds=300)
    return source


def add_file(image, source, name):
    """Writes one more real file into the image, as mounting and copying would."""
    run(["debugfs", "-w", "-R", f"write {source} {name}", image])


def changed_extents(before, after):
    """(offset, length) of the runs of 4 KiB blocks in which two files of the same size differ."""
    extents = []
    with open(before, "rb") as a, open(after, "rb") as b:
        offset = 0
        while piece := b.read(1 << 20):
            old = a.read(1 << 20)
            if old != piece:
                for at in range(0, len(piece), BLOCK):
                    if old[at:at + BLOCK] != piece[at:at + BLOCK]:
                        if extents and sum(extents[-1]) == offset + at:
                            extents[-1] = (extents[-1][0], extents[-1][1] + BLOCK)
                        else:
                            extents.append((offset + at, BLOCK))
            offset += len(piece)
    return extents


def write_extents(image, extents, url):
    """Writes these parts of the image to the same places of a LUN, in one qemu-io session, and flushes."""
    command = ["qemu-io", "-f", "raw"]
    for offset, length in extents:
        piece = image.with_suffix(f".{offset}")
        with open(image, "rb") as source:
            source.seek(offset)
            piece.write_bytes(source.read(length))
        command += ["-c", f"write -q -s {piece} {offset} {length}"]
    done = run([*command, "-c", "flush", url], seconds=120)
    for offset, _ in extents:
        image.with_suffix(f".{offset}").unlink()
    if "failed" in done.stdout or "error" in done.stdout.lower():
        raise RuntimeError(f"qemu-io: {done.stdout.strip()[:500]}")
