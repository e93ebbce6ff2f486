# SPDX-License-Identifier: Apache-2.0
"""Initiators as processes: loadgen and qemu-img."""
import json
import subprocess

from lab.daemon import CommandFailed, binaries, run


class Load:
    """A loadgen run in the background."""

    def __init__(self, url, **options):
        self.command = load_command(url, options)
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        stdin=subprocess.DEVNULL)

    def result(self, seconds=180):
        """Waits for its end; the report as a dictionary, with exit_code in it."""
        try:
            output, errors = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise TimeoutError(f"loadgen did not end within {seconds} s") from None
        if not output.strip().startswith("{"):
            raise CommandFailed(self.command, self.process.returncode, output, errors)
        return json.loads(output)

    def end(self):
        """Asks it to end now, properly."""
        self.process.terminate()


def load_command(url, options):
    command = [str(binaries() / "loadgen"), url, "--json"]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            command.append(flag)
        elif value is not False and value is not None:
            command += [flag, str(value)]
    return command


def load(url, seconds_limit=180, **options):
    """Runs loadgen to its end; options are its long options (block_size="256KiB", check=True ...)."""
    return Load(url, **options).result(seconds_limit)


def write_image(image, url, seconds=300):
    """Writes a raw image file through a LUN with qemu-img."""
    return run(["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, url], seconds=seconds)


def read_image(url, image, seconds=300):
    """Reads a whole LUN into a raw image file with qemu-img."""
    return run(["qemu-img", "convert", "-f", "raw", "-O", "raw", url, image], seconds=seconds)


def compare_image(image, url, seconds=300):
    """True if the LUN begins with the image and holds zeros after it (qemu-img compare)."""
    done = run(["qemu-img", "compare", "-f", "raw", "-F", "raw", image, url], seconds=seconds, check=False)
    if done.returncode not in (0, 1):
        raise CommandFailed(["qemu-img", "compare"], done.returncode, done.stdout, done.stderr)
    return done.returncode == 0
