#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""CHAP with real clients: right, wrong and missing secrets, both ways, in discovery, and what the daemon says of it."""
import contextlib
import json
import os
import signal
import unittest

from e2e_case import EndToEnd, array, iqn, target, volume
from lab.daemon import Refused, run, wait_until
from lab.initiator import Load, load

SECRET = "correct-horse-battery"
OTHER = "another-secret-of-it"
OWN = "this-is-the-target"
SECRETS = f"""[[user]]
name = "host"
secret = "{SECRET}"
[[user]]
name = "guest"
secret = "{OTHER}"
initiators = ["iqn.2026-11.dev.gemel:guest*"]
[[own]]
name = "gemel"
secret = "{OWN}"
"""
CHAP = '[chap]\nsecrets = "secrets"\n'
DISCOVERY = '[discovery]\nchap_users = ["host", "guest"]\n'


def targets():
    both = target("t", more='chap_users = ["host", "guest"]\nchap_own = "gemel"\n')
    return both + target("u", more='chap_users = ["guest"]\n')


class Chap(EndToEnd):
    def guarded(self, more="", secrets=SECRETS, mode=0o600):
        node = self.daemon("n", array() + volume() + targets() + CHAP + more)
        (node.state_dir / "secrets").write_text(secrets)
        os.chmod(node.state_dir / "secrets", mode)
        return node

    def client(self, node, *command, user=None, password=None, own=None, own_password=None, name="t"):
        """A libiscsi tool on a LUN (or, for iscsi-ls, the portal) with these credentials."""
        given = {"LIBISCSI_CHAP_USERNAME": user, "LIBISCSI_CHAP_PASSWORD": password,
                 "LIBISCSI_CHAP_TARGET_USERNAME": own, "LIBISCSI_CHAP_TARGET_PASSWORD": own_password}
        environment = os.environ | {k: v for k, v in given.items() if v}
        url = f"iscsi://{node.address}" if command[0] == "iscsi-ls" else node.url(iqn(name))
        return run([*command, url], check=False, env=environment)

    def sessions(self, node):
        return [(s["isid"], s["tsih"]) for s in node.ask("session", "list")]

    @staticmethod
    @contextlib.contextmanager
    def credentials(user, password):
        """Of what is started meanwhile."""
        given = {"LIBISCSI_CHAP_USERNAME": user, "LIBISCSI_CHAP_PASSWORD": password}
        os.environ.update(given)
        try:
            yield
        finally:
            for name in given:
                del os.environ[name]

    def test_right_secrets_get_in_and_everything_else_does_not(self):
        node = self.start(self.guarded())
        right = {"user": "host", "password": SECRET}
        mutual = right | {"own": "gemel", "own_password": OWN}
        cases = (
            ("no credentials", {}, False), ("right", right, True), ("both ways", mutual, True),
            ("wrong secret", right | {"password": "not-the-secret-1"}, False),
            ("unknown user", right | {"user": "nobody"}, False),
            ("another's secret", right | {"password": OTHER}, False),
            ("a user who is bound to other initiators", {"user": "guest", "password": OTHER}, False),
            ("the target's secret", {"user": "gemel", "password": OWN}, False),
            ("a target that lies", mutual | {"own_password": "not-the-secret-1"}, False),
            ("a target of another name", mutual | {"own": "other"}, False),
        )
        for what, credentials, good in cases:
            with self.subTest(what):
                done = self.client(node, "iscsi-inq", **credentials)
                self.assertEqual(done.returncode == 0, good, done.stdout + done.stderr)
        self.assertNotEqual(self.client(node, "iscsi-inq", name="u", **right).returncode, 0, "not his target")
        with self.credentials("host", SECRET):
            self.assert_good(load(node.url(iqn("t")), operations=50))
        with self.credentials("host", OTHER):
            self.assertEqual(load(node.url(iqn("t")), operations=50)["exit_code"], 4)

    def test_a_session_survives_who_tries_to_take_it_and_the_daemon_counts_him(self):
        node = self.start(self.guarded())
        with self.credentials("host", SECRET):
            running = Load(node.url(iqn("t")), seconds=4, depth=4, reads=50, verify=self.folder / "ledger")
        wait_until(lambda: node.ask("session", "list"), 20, "the session is there")
        for _ in range(3):
            self.client(node, "iscsi-inq", user="host", password="not-the-secret-1")
        self.client(node, "iscsi-inq", user="guest", password=OTHER)
        self.assertIsNone(running.process.poll(), "the session ended before the attempts did")
        self.assert_good(running.result())
        status = node.ask("status")
        failures = status["iscsi"]["login_failures_by_status"]
        self.assertEqual(failures["authentication-failure"], 3)
        self.assertEqual(failures["authorization-failure"], 1)
        self.assertEqual(status["iscsi"]["login_failures"], 4)
        self.assertEqual([t["chap"] for t in status["targets"]], [True, True])
        said = json.dumps(status) + node.gemel("events").stdout + node.gemel("session", "list", "--json").stdout
        said += node.log_text()
        self.assertIn("iscsi-login-refused", said)
        for secret in (SECRET, OTHER, OWN, "not-the-secret-1"):
            self.assertNotIn(secret, said)

    def test_discovery_shows_each_user_his_own_and_strangers_nothing(self):
        node = self.start(self.guarded(DISCOVERY))
        self.assertNotEqual(self.client(node, "iscsi-ls").returncode, 0)
        host = self.client(node, "iscsi-ls", user="host", password=SECRET).stdout
        self.assertIn(iqn("t"), host)
        self.assertNotIn(iqn("u"), host)
        guest = self.client(node, "iscsi-ls", "-i", iqn("guest-1"), user="guest", password=OTHER).stdout
        self.assertIn(iqn("t"), guest)
        self.assertIn(iqn("u"), guest)

    def test_secrets_are_read_anew_while_sessions_stay(self):
        node = self.start(self.guarded())
        file = node.state_dir / "secrets"
        new = "a-secret-of-the-new-year"
        with self.credentials("host", SECRET):
            running = Load(node.url(iqn("t")), seconds=60, depth=2)
        wait_until(lambda: len(self.sessions(node)) == 1, 10, "a session")
        held = self.sessions(node)
        try:
            file.write_text(SECRETS.replace(SECRET, new))
            self.assertEqual(self.client(node, "iscsi-inq", user="host", password=SECRET).returncode, 0, "not read yet")
            done = node.gemel("reload")
            self.assertIn("sessions stay", done.stdout)
            self.assertNotEqual(self.client(node, "iscsi-inq", user="host", password=SECRET).returncode, 0)
            self.assertEqual(self.client(node, "iscsi-inq", user="host", password=new).returncode, 0)
            for text, mode, words in ((SECRETS.replace(SECRET, "too-short"), 0o600, "12 to 255"),
                                      (SECRETS, 0o644, "chmod 600")):
                file.write_text(text)
                os.chmod(file, mode)
                refused = node.gemel("reload", check=False)
                self.assertEqual(refused.returncode, 2, refused.stderr)
                self.assertIn(words, refused.stderr)
                self.assertEqual(self.client(node, "iscsi-inq", user="host", password=new).returncode, 0, "as before")
            node.signal(signal.SIGHUP)
            wait_until(lambda: "reload-refused" in node.gemel("events").stdout, 10, "the event")
            os.chmod(file, 0o600)
            node.signal(signal.SIGHUP)
            wait_until(lambda: node.gemel("events").stdout.count("secrets-reloaded") == 2, 10, "the second event")
            again = self.client(node, "iscsi-inq", user="host", password=SECRET)
            self.assertEqual(again.returncode, 0, "the first secret again")
            wait_until(lambda: self.sessions(node) == held, 10, "the session that was there at first is the only one")
        finally:
            running.end()
        self.assert_good(running.result())
        self.assertRegex(node.gemel("stats").stdout, r"logins \d+, refused 1: 1 authentication-failure")
        said = node.gemel("events").stdout + node.log_text()
        for secret in (SECRET, new, "too-short"):
            self.assertNotIn(secret, said)

    def test_what_is_weaker_than_allowed_is_refused(self):
        node = self.start(self.guarded('weakest_algorithm = "sha256"\n'))
        done = self.client(node, "iscsi-inq", user="host", password=SECRET)
        self.assertNotEqual(done.returncode, 0, "libiscsi speaks MD5 only")
        self.assertIn("CHAP algorithms 5", node.gemel("events").stdout)

    def test_bad_secrets_files_keep_the_daemon_from_starting_and_are_not_quoted(self):
        cases = (
            ("others may read it", SECRETS, 0o644, "chmod 600"),
            ("a short secret", SECRETS.replace(SECRET, "too-short"), 0o600, "12 to 255"),
            ("one secret both ways", SECRETS.replace(OWN, SECRET), 0o600, "pose"),
            ("a user is missing", SECRETS.replace('"guest"', '"somebody"'), 0o600, "'guest' of chap_users"),
            ("no TOML", SECRETS.replace(f'"{SECRET}"', f'"{SECRET}'), 0o600, "not TOML"),
        )
        for what, secrets, mode, words in cases:
            with self.subTest(what):
                with self.assertRaises(Refused) as refused:
                    self.guarded(secrets=secrets, mode=mode).start()
                self.assertEqual(refused.exception.code, 3)
                self.assertIn(words, refused.exception.text)
                for secret in (SECRET, OTHER, OWN, "too-short"):
                    self.assertNotIn(secret, refused.exception.text)

    def test_an_open_portal_needs_chap_or_a_list_or_the_word_insecure(self):
        node = self.guarded()
        node.portal = "0.0.0.0:0"
        self.start(node)
        self.assertEqual(node.stop(), 0)
        node.config.write_text(node.config.read_text() + target("open"))
        with self.assertRaises(Refused) as refused:
            node.start()
        self.assertIn("chap_users", refused.exception.text)


if __name__ == "__main__":
    unittest.main()
