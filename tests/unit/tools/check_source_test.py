#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Each rule of tools/check-source catches its mistake, and the same tree without the mistake passes."""
import importlib.machinery
import importlib.util
import sys
import tempfile
import unittest
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[3] / "tools"
loader = importlib.machinery.SourceFileLoader("check_source", str(TOOLS / "check-source"))
spec = importlib.util.spec_from_loader(loader.name, loader)
check_source = importlib.util.module_from_spec(spec)
sys.modules[loader.name] = check_source
loader.exec_module(check_source)

LICENCE = "// SPDX-License-Identifier: Apache-2.0\n"
GOOD = {
    "README.md": "# x\n",
    "include/gemel/README.md": "| file | what |\n|---|---|\n| `a.hpp` | contract |\n",
    "include/gemel/a.hpp": LICENCE + "#pragma once\nnamespace gemel { struct A { int value = 0; }; }\n",
    "raid/README.md": "| file | what |\n|---|---|\n| `b.hpp`, `b.cpp` | array |\n",
    "raid/b.hpp": LICENCE + '#pragma once\n#include "gemel/a.hpp"\nnamespace gemel { A make(); }\n',
    "raid/b.cpp": LICENCE + '#include "raid/b.hpp"\nnamespace gemel {\nA make() {\n    return {};\n}\n}\n',
}
MARK = "TO" + "DO"  # so that this file does not find itself

# (what is wrong, file, text put in its place or appended with "+", part of the finding)
BAD = [
    ("raid includes the front end", "raid/b.cpp", '+#include "target/iscsi/pdu.hpp"\n', "must not include"),
    ("raid includes replication", "raid/b.hpp", '+#include "replication/link.hpp"\n', "must not include"),
    ("a contract includes a room", "include/gemel/a.hpp", '+#include "raid/b.hpp"\n', "must not include"),
    ("code includes a test", "raid/b.cpp", '+#include "tests/support/x.hpp"\n', "must not include"),
    ("an include is relative", "raid/b.cpp", '+#include "b.hpp"\n', "top of the tree"),
    ("rand", "raid/b.cpp", "+int r() {\n    return rand();\n}\n", "banned here"),
    ("system clock", "raid/b.cpp", "+auto t = std::chrono::steady_clock::now();\n", "gemel::Clock"),
    ("thread", "raid/b.cpp", "+std::thread t;\n", "executor"),
    ("sleep", "raid/b.cpp", "+void f() {\n    std::this_thread::sleep_for(1s);\n}\n", "sleep_for"),
    ("function object", "raid/b.cpp", "+std::function<void()> f;\n", "interface"),
    ("file in simulated code", "raid/b.cpp", "+#include <fstream>\n", "gemel/"),
    ("asio below the front end", "raid/b.cpp", "+#include <boost/asio.hpp>\n", "banned here"),
    ("goto", "raid/b.cpp", "+void f() {\n    goto end;\nend:\n    return;\n}\n", "goto"),
    ("skipped test", "raid/b.cpp", "+TEST(A, DISABLED_b) {}\n", "skip"),
    ("using namespace in a header", "raid/b.hpp", "+using namespace std;\n", "opens no namespace"),
    ("unfinished work", "raid/b.cpp", f"+// {MARK}: later\n", "open an issue"),
    ("path of a machine", "raid/b.cpp", "+// see /" + "home/someone/x\n", "one machine"),
    ("secret in an address", "raid/b.cpp", "+// iscsi://user%" + "secret@host/t/0\n", "no secret"),
    ("registry host", "raid/b.cpp", "+// from py" + "pi.org\n", "registry"),
    ("long line", "raid/b.cpp", "+// " + "x" * 120 + "\n", "columns"),
    ("long file", "raid/b.cpp", "+" + "//\n" * 800, "at most 800"),
    ("long function", "raid/b.cpp", "+void f() {\n" + "    g();\n" * 59 + "}\n", "61 lines"),
    ("long method", "raid/b.cpp", "+struct S {\n  int f(int a) const noexcept {\n" + "    g();\n" * 59 + "  }\n};\n",
     "61 lines"),
    ("long constructor", "raid/b.cpp", "+S::S(int x) : a_{x}, b_(x) {\n" + "    g();\n" * 59 + "}\n", "61 lines"),
    ("long Python function", "raid/b.py", "# " + LICENCE[3:] + "def f():\n" + "    g()\n" * 60, "61 lines"),
    ("no licence", "raid/b.cpp", "#include \"raid/b.hpp\"\n", "licence"),
    ("no row", "raid/c.cpp", LICENCE, "no row"),
    ("no README", "replication/c.cpp", LICENCE, "no README.md"),
    ("vague name", "raid/b_util.cpp", LICENCE, "name the file"),
    ("command without a row", "tools/thing", "#!/usr/bin/env bash\n# " + LICENCE[3:], "does not name this command"),
    ("header needs another", "raid/b.hpp", LICENCE + "#pragma once\nnamespace gemel { A make(); }\n",
     "does not compile alone"),
]
# What must not be found.
FINE = [
    ("a comment may speak of rand()", "raid/b.cpp", "+// not rand() and not std::thread\n"),
    ("a string may hold anything", "raid/b.cpp", '+const char* s = "goto std::thread { rand(";\n'),
    ("60 lines are allowed", "raid/b.cpp", "+void f() {\n" + "    g();\n" * 58 + "}\n"),
    ("a long class is not a function", "raid/b.cpp", "+struct S {\n" + "    int g();\n" * 100 + "};\n"),
    ("digit separators are not literals", "raid/b.cpp", "+constexpr int n = 1'000; // ' \nvoid f() {\n}\n"),
]


class CheckSource(unittest.TestCase):
    def findings(self, change=None):
        with tempfile.TemporaryDirectory() as folder:
            files = dict(GOOD)
            if change:
                path, text = change
                files[path] = files.get(path, "") + text[1:] if text.startswith("+") else text
            for path, text in files.items():
                (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
                (Path(folder) / path).write_text(text)
            tree = check_source.Tree(folder, Path(folder) / "build")
            compile_headers = change is None or change[0].endswith(".hpp")
            return [str(f) for f in check_source.findings_of(tree, compile_headers)]

    def test_a_good_tree_passes(self):
        self.assertEqual(self.findings(), [])

    def test_each_mistake_is_caught(self):
        for what, path, text, expected in BAD:
            with self.subTest(what):
                found = self.findings((path, text))
                self.assertTrue(any(expected in f and f.startswith(path) for f in found), f"{what}: {found}")

    def test_what_is_allowed_is_not_found(self):
        for what, path, text in FINE:
            with self.subTest(what):
                self.assertEqual(self.findings((path, text)), [])

    def test_messages_name_the_replacement(self):
        for ban in check_source.BANS + check_source.TEXT_BANS + check_source.HEADER_BANS:
            self.assertGreater(len(ban.instead), 10)


if __name__ == "__main__":
    unittest.main()
