from __future__ import annotations

import pytest

from kernel import patch
from kernel.errors import Code, FarmError

GOOD = """From 1 Mon Sep 17 00:00:00 2001
Subject: [PATCH] x
---
 a.c | 2 +-
diff --git a/kernel/a.c b/kernel/a.c
--- a/kernel/a.c
+++ b/kernel/a.c
@@ -1,3 +1,3 @@
 x
-y
+z
@@ -40,2 +40,2 @@ f
-q
+r
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
    ],
)
def test_patches_that_lead_out_or_are_none_are_refused(text: str) -> None:
    with pytest.raises(FarmError) as caught:
        patch.parse(text, "bad.patch")
    assert caught.value.problem.code is Code.BAD_PATCH
    assert caught.value.problem.where.startswith("bad.patch")
