from __future__ import annotations

import difflib
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel import patch
from kernel.errors import Code, FarmError

GOOD = """From 1 Mon Sep 17 00:00:00 2001
Subject: [PATCH] x
---
 a.c | 2 +-
diff --git a/kernel/a.c b/kernel/a.c
--- a/kernel/a.c
+++ b/kernel/a.c
@@ -1,2 +1,2 @@
 x
-y
+z
@@ -40,2 +40,2 @@ f
-q
+r
 s
diff --git a/new.c b/new.c
new file mode 100644
--- /dev/null
+++ b/new.c
@@ -0,0 +1 @@
+n
diff --git a/old.c b/moved.c
rename from old.c
rename to moved.c
"""


def test_the_touched_files() -> None:
    assert patch.parse(GOOD, "p").touched == ("kernel/a.c", "new.c", "old.c", "moved.c")


def test_hunks_are_counted_per_file() -> None:
    assert patch.hunk_at(GOOD, "kernel/a.c", 1) == 1
    assert patch.hunk_at(GOOD, "kernel/a.c", 40) == 2
    assert patch.hunk_at(GOOD, "other.c", 1) == 0


@pytest.mark.parametrize(
    "text",
    [
        "no patch at all\n",
        "--- a/../../etc/passwd\n+++ b/../../etc/passwd\n@@ -1 +1 @@\n-a\n+b\n",
        "diff --git a/x b//etc/passwd\n",
        "diff --git a/.git/hooks/x b/.git/hooks/x\n",
        "diff --git a/x b/x\nrename from ../x\n",
        "diff --git a/x b/x\nGIT binary patch\n",
        "diff --git a/x b/x\nindex 1..2 100644\nBinary files a/x and b/x differ\n",
        "diff --git a/x b/x\nindex 1..2 100644\nGIT binary patch\nliteral 1\n",
        "Binary files a/logo.png and b/logo.png differ\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n",
        "diff --git a/x b/x\nrename old ../x\nrename new y\n",
        'diff --git "a/\\303" "b/\\303"\nold mode 100644\nnew mode 100755\n',
        "--- a/x\n+++ b/x\n@@ -1,9 +1 @@\n-a\n+b\n",
        "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n@@ -x +1 @@\n",
        "diff --git a/a.c b/a.c\ndiff --git a/b.c b/b.c\nold mode 100644\nnew mode 100755\n",
        "message\n@@ -1 +1 @@\n-a\n+b\n",
        "--- a/./x\n+++ b/./x\n@@ -1 +1 @@\n-a\n+b\n",
    ],
)
def test_patches_that_lead_out_or_are_none_are_refused(text: str) -> None:
    with pytest.raises(FarmError) as caught:
        patch.parse(text, "bad.patch")
    assert caught.value.problem.code is Code.BAD_PATCH
    assert caught.value.problem.where.startswith("bad.patch")


def test_lines_of_a_message_are_no_headers() -> None:
    message = (
        "From 1 Mon Sep 17 00:00:00 2001\nSubject: [PATCH] x\n\ncopy from /etc/passwd by hand\nBinary files a and b differ\n"
        "Binary files a/x and b/x differ, said git:\nBinary files a/x and b/x differ\nrename to /tmp/x\n--- /etc/passwd\n"
        "\n"
    )
    assert patch.parse(message + GOOD, "p").touched == patch.parse(GOOD, "p").touched


def test_lines_of_a_hunk_are_no_headers() -> None:
    text = (
        "--- a/x.sql\n+++ b/x.sql\n@@ -1,3 +1,2 @@\n--- see http://foo/bar\n+++ /etc/passwd\n-@@ -7 +7 @@\n"
        " diff --git a/y b/y\n@@ -7 +6 @@\n-a\n+b\n-- \n2.39.5\n"
    )
    assert patch.parse(text, "p").touched == ("x.sql",)
    assert patch.hunk_at(text, "x.sql", 7) == 2
    assert patch.hunk_at(text, "see http://foo/bar", 7) == 0


def test_only_a_line_feed_ends_a_line_as_for_git() -> None:
    text = "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-a\x0c--- a/../y\n+b\x0c\u2028\n c\n"
    assert patch.parse(text, "p").touched == ("x",)


TRICKY = st.sampled_from(
    ["", "x", "-- see http://foo/bar", "++ b/../x", "++ /dev/null", "@@ -1 +1 @@", "diff --git a/../x b/../x", "rename to ../x", "\\ No"]
)


@given(st.lists(TRICKY, max_size=30), st.lists(TRICKY, max_size=30))
def test_whatever_a_file_holds_its_patch_touches_that_file_alone(old: list[str], new: list[str]) -> None:
    lines = list(difflib.unified_diff(old, new, "a/dir/x.c", "b/dir/x.c", lineterm=""))
    if not lines:
        return
    text = "\n".join(["Subject: x", *lines, "-- ", "2.39.5", ""])
    assert patch.parse(text, "p").touched == ("dir/x.c",)
    first = int(lines[2].split()[1].removeprefix("-").partition(",")[0])
    assert patch.hunk_at(text, "dir/x.c", first) == 1


FILES = ("a.c", "d/b.c", "d/c d.c", "dev/null")
PIECES = st.sampled_from(
    [
        "diff --git a/a.c b/a.c\n",
        "diff --git a/d/c d.c b/d/c d.c\nold mode 100644\nnew mode 100755\n",
        "diff --git a/d/b.c b/e.c\nsimilarity index 100%\nrename from d/b.c\nrename to e.c\n",
        "diff --git x/a.c y/f.c\ncopy from a.c\ncopy to f.c\n",
        "diff --git a/d/b.c b/d/g.c\nrename old d/b.c\nrename new d/g.c\n",
        "diff --git a/h b/h\nnew file mode 100644\nindex 0000000..e69de29\n",
        "diff --git a/a.c b/a.c\ndeleted file mode 100644\n--- a/a.c\n+++ /dev/null\n@@ -1,3 +0,0 @@\n-1\n-2\n-3\n",
        "diff --git a/q b/q\n--- /dev/null\n+++ b/dev/null\n",
        "diff --git a/q b/q\nindex 1..2\n",
        "--- a/a.c\n+++ b/a.c\n",
        "--- a/d/c d.c\t2010-07-05 19:41:17.620000023 -0500\n+++ b/d/c d.c\t2010-07-05 19:41:17.620000023 -0500\n",
        "--- a/d/b.c 2010-07-05 19:41:17\n+++ b/d/b.c 2010-07-05 19:41:17\n",
        "--- a/d/b.c.orig\n+++ b/d/b.c\n",
        "--- a/d/b.c\r\n+++ b/d/b.c\r\n",
        "--- /dev/null\n+++ b/i\n@@ -0,0 +1 @@\n+1\n",
        "@@ -1,3 +1,3 @@\n 1\n-2\n+two\n 3\n",
        "@@ -1,3 +1,4 @@\n 1\n 2\n+-- a/d/b.c\n 3\n",
        "message\n",
        "--- a/a.c\n",
        "+++ b/d/b.c\n",
        "rename from a.c\n",
        "new file mode 100644\n",
        "\n",
        "\\ No newline at end of file\n",
        "-- \n2.39.5\n",
    ]
)


@given(st.lists(PIECES, min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_no_file_that_git_would_touch_is_missed(pieces: list[str]) -> None:
    """With just the files that the reader found, git does what it does in the whole tree."""
    text = "".join(pieces)
    with tempfile.TemporaryDirectory(prefix="kf-patch-") as folder:
        whole, found = Path(folder, "whole"), Path(folder, "found")
        _put(whole, FILES)
        applied, after = _git_apply(whole, text)
        if not applied:
            return
        try:
            touched = patch.parse(text, "p").touched
        except FarmError:
            return
        _put(found, tuple(file for file in FILES if file in touched))
        applied, partly = _git_apply(found, text)
        assert applied
        untouched = {file: "644 1\n2\n3\n" for file in FILES if file not in touched}
        assert {**untouched, **partly} == after


def _put(folder: Path, files: tuple[str, ...]) -> None:
    folder.mkdir()
    for file in files:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text("1\n2\n3\n")
        (folder / file).chmod(0o644)


def _git_apply(folder: Path, text: str) -> tuple[bool, dict[str, str]]:
    env = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "GIT_CEILING_DIRECTORIES": str(folder.parent), "GIT_CONFIG_NOSYSTEM": "1"}
    words = ("git", "apply", "--whitespace=nowarn", "-p1")
    done = subprocess.run(words, cwd=folder, env=env, input=text.encode(), capture_output=True, check=False)
    files = (path for path in folder.rglob("*") if path.is_file())
    return done.returncode == 0, {
        str(path.relative_to(folder)): f"{path.stat().st_mode & 0o777 | 0o44:o} {path.read_text()}" for path in files
    }
