#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Wrong configurations: each a clear error with its line, nothing created and nothing changed."""
import re
import unittest

from e2e_case import EndToEnd, array, iqn, target, volume
from lab.daemon import Refused, binaries, run
from lab.initiator import Load, load

GOOD = array() + volume() + target()
# (what, text, words that the error must contain)
MISTAKES = (
    ("an unknown table", GOOD + "[[volumee]]\nname = 'x'\n", ("volumee", "volume")),
    ("a misspelt key", GOOD.replace("strip =", "stirp ="), ("stirp", "strip")),
    ("a wrong type", GOOD.replace('level = "5"', "level = [5]"), ("level",)),
    ("an unknown level", GOOD.replace('level = "5"', 'level = "7"'), ("level",)),
    ("a strip that is no power of two", GOOD.replace("16KiB", "24KiB"), ("strip",)),
    ("two arrays of one name", GOOD + array(folder="other-"), ("r5",)),
    ("two volumes of one name", GOOD + volume(), ("vol",)),
    ("two targets of one name", GOOD + target(), (iqn("t"),)),
    ("two LUNs of one number", GOOD + target("u").replace("lun = 0", "lun = 0, volume = \"vol\"}, {lun = 0"), ("lun",)),
    ("a LUN of no volume", GOOD.replace('volume = "vol"', 'volume = "vool"'), ("vool", "vol")),
    ("a volume of no array", GOOD + volume("w", of="r6"), ("r6",)),
    ("a member in two arrays", GOOD + array("r6").replace("r60", "r50"), ("r50",)),
    ("too few members", array(members=2) + volume() + target(), ("member",)),
    ("a bad target name", GOOD.replace("iqn.2026-11", "iqn-2026-11"), ("iqn",)),
    ("a bad portal", GOOD + '[[portal]]\naddress = "127.0.0.1:99999"\n', ("99999",)),
    ("broken TOML", GOOD + "[[array\n", ()),
)


class BadConfig(EndToEnd):
    def test_each_mistake_is_named_with_its_line_and_nothing_is_created(self):
        for what, text, words in MISTAKES:
            with self.subTest(what):
                node = self.daemon("n", text)
                checked = run([binaries() / "gemeld", "--check-config", node.config], check=False)
                said = checked.stdout + checked.stderr
                self.assertNotEqual(checked.returncode, 0, said)
                self.assertRegex(said, r":\d+:\d+", "line and column")
                for word in words:
                    self.assertIn(word.lower(), said.lower())
                with self.assertRaises(Refused):
                    node.start()
                self.assertEqual(self.hashes(node.state_dir), {}, "no member may be created")

    def test_all_mistakes_are_reported_at_once(self):
        text = GOOD.replace("strip =", "stirp =").replace('of="r5"', "") + volume("w", of="r6") + "[nodde]\n"
        node = self.daemon("n", text)
        said = run([binaries() / "gemeld", "--check-config", node.config], check=False).stderr
        for word in ("stirp", "r6", "nodde"):
            self.assertIn(word, said)

    def test_a_good_configuration_passes_the_check(self):
        node = self.daemon("n", GOOD)
        run([binaries() / "gemeld", "--check-config", node.config])
        self.assertEqual(self.hashes(node.state_dir), {}, "a check creates nothing")

    def test_a_port_in_use_is_named_and_its_owner_is_not_disturbed(self):
        first = self.start(self.daemon("first", GOOD))
        running = Load(first.url(iqn("t")), seconds=3, depth=4, reads=50, verify=self.folder / "ledger")
        second = self.daemon("second", GOOD, portal=first.address)
        with self.assertRaises(Refused) as refused:
            second.start()
        self.assertIn(first.address.rsplit(":", 1)[1], refused.exception.text)
        self.assertRegex(refused.exception.text, r"in use")
        self.assert_good(running.result())

    def test_a_portal_for_everybody_is_refused_unless_asked_for(self):
        node = self.daemon("n", GOOD, portal="0.0.0.0:0")
        with self.assertRaises(Refused) as refused:
            node.start()
        self.assertRegex(refused.exception.text, r"insecure_no_auth|allowed_initiators")

    def test_one_key_for_two_peers_is_refused(self):
        peers = '[node]\nname = "n"\n[replication]\nlisten = "127.0.0.1:0"\n'
        for name in ("b", "c"):
            file = self.folder / f"{name}.key"
            file.write_text("1f" * 32 + "\n")
            file.chmod(0o600)
            peers += f'[[peer]]\nnode = "{name}"\naddress = "127.0.0.1:9"\nkey_file = "{file}"\n'
        with self.assertRaises(Refused) as refused:
            self.daemon("n", peers + GOOD).start()
        self.assertRegex(refused.exception.text, "peers 'b' and 'c' have the same key.* make one for each pair")

    def test_an_initiator_not_on_the_list_cannot_log_in(self):
        text = array() + volume() + target(more='allowed_initiators = ["iqn.2026-11.dev.gemel:friend*"]\n')
        node = self.start(self.daemon("n", text))
        url = node.url(iqn("t"))
        self.assert_good(load(url, operations=10, initiator="iqn.2026-11.dev.gemel:friend-1"))
        self.assertEqual(load(url, operations=10, initiator="iqn.2026-11.dev.gemel:foe")["exit_code"], 4)
        self.assert_good(load(url, operations=10, initiator="iqn.2026-11.dev.gemel:friend-1"))

    def test_the_exit_code_of_a_wrong_command_line_differs_from_that_of_a_wrong_file(self):
        node = self.daemon("n", GOOD.replace("strip =", "stirp ="))
        wrong_file = run([binaries() / "gemeld", "--check-config", node.config], check=False).returncode
        wrong_line = run([binaries() / "gemeld", "--no-such-option"], check=False).returncode
        self.assertNotIn(0, (wrong_file, wrong_line))
        self.assertNotEqual(wrong_file, wrong_line)
        self.assertTrue(re.search("config", run([binaries() / "gemeld", "--help"]).stdout))


if __name__ == "__main__":
    unittest.main()
