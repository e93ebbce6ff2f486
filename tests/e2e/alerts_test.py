#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Alerts of a real daemon: a program, a web address and a mailer are told that a member failed, and what to do."""
import http.server
import json
import threading
import unittest

from e2e_case import EndToEnd, array, target, volume
from lab.daemon import wait_until


class Hook(http.server.BaseHTTPRequestHandler):
    """Takes what is posted; the first time it is out of order, then it has moved."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posts += 1
        if self.path == "/moved":
            self.server.events += json.loads(body)["events"]
        self.send_response(204 if self.path == "/moved" else 503 if self.server.posts == 1 else 301)
        self.send_header("Location", "/moved")
        self.end_headers()

    def log_message(self, *_):
        pass


class Alerts(EndToEnd):
    def events_in(self, file):
        """Of whole lines: the last one may be on its way."""
        lines = file.read_text().split("\n")[:-1] if file.exists() else []
        return [e for line in lines for e in json.loads(line)["events"]]

    def test_a_failed_member_is_told_by_program_web_and_mail(self):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
        server.posts, server.events = 0, []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        told, mailed = self.folder / "told", self.folder / "mailed"
        mailer = self.folder / "sendmail"
        mailer.write_text(f'#!/bin/sh\ncat >> "{mailed}"\n')
        mailer.chmod(0o755)
        alerts = f"""
[[alert]]
name = "program"
exec = ["/bin/sh", "-c", "cat >> '{told}'"]
[[alert]]
name = "web"
severity = "error"
webhook = "http://127.0.0.1:{server.server_port}/hook?secret=1"
[[alert]]
name = "mail"
severity = "error"
mail = "ops@example.org"
sendmail = "{mailer}"
"""
        node = self.start(self.daemon("n", array() + volume() + target() + alerts))
        wait_until(lambda: node.ask("array", "show", "r5")[0]["resync"] is None, 60, "a member can be spared")
        node.gemel("array", "fail", "r5", "1")
        wait_until(lambda: any(e["id"] == "member-failed" for e in server.events), 60,
                   "the web address is told, once it works again")
        wait_until(lambda: mailed.exists() and "What to do:" in mailed.read_text(), 30, "a mail is sent")
        self.assertIn("To: ops@example.org\nSubject: [gemel gemel] error: member-failed: ", mailed.read_text())
        wait_until(lambda: any(e["id"] == "member-failed" for e in self.events_in(told)), 30, "the program is told")
        events = self.events_in(told)
        self.assertEqual(sorted({e["sequence"] for e in events}), [e["sequence"] for e in events])
        kept = [json.loads(line) for line in node.gemel("events", "--json").stdout.splitlines()]
        known = {e["sequence"]: e for e in kept}
        self.assertTrue(all(known[e["sequence"]] == e for e in events))
        self.assertEqual({e["subject"] for e in known.values() if e["id"] == "alert-failed"}, {"alert web"})


if __name__ == "__main__":
    unittest.main()
