"""What exists already, with both daemons, real make and real package files: built again is what
vanished, was damaged, or is made of something else now, and nothing that this does not change."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import sqlite_utils

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(600)


class Farm:
    """A copy of the example tree, and what is made of it."""

    def __init__(self, there: Path) -> None:
        self.tree, self.state = there / "tree", there / "var"
        shutil.copytree(ROOT / "examples/pkgsrc", self.tree, symlinks=True)

    def run(self) -> list[str]:
        """Builds what is to be built; returns the names of what was."""
        words = ("run", "--state", str(self.state), "--tree", str(self.tree), "--once", "--select",
                 "graphics/plot", "--profile", "p")  # fmt: skip
        seen = len(self.attempts())
        done = subprocess.run(
            [sys.executable, "-m", "clusterbuild", *words],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == os.EX_OK, done.stdout + done.stderr
        return self.attempts()[seen:]

    def rows(self, query: str) -> list[dict[str, str]]:
        path = self.state / "clusterdep.db"
        return list(sqlite_utils.Database(path).query(query)) if path.exists() else []

    def attempts(self) -> list[str]:
        return [row["pkgname"] for row in self.rows("SELECT pkgname FROM attempt ORDER BY rowid")]

    def reasons(self) -> dict[str, list[str]]:
        """Why packages were stale, by their names."""
        rows = self.rows("SELECT subject, detail FROM event WHERE kind = 'stale'")
        return {row["subject"]: json.loads(row["detail"])["reasons"] for row in rows}

    def file(self, pkgname: str) -> Path:
        """The file in the pool."""
        query = f"SELECT sha256 FROM artifact WHERE pkgname = '{pkgname}' ORDER BY id DESC"
        return self.state / f"packages/p/pool/{self.rows(query)[0]['sha256']}.tgz"


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path)


def test_only_what_has_changed_is_built_again(farm: Farm) -> None:
    first = farm.run()
    assert first[-1].startswith("plot-")
    assert "libvec-1.4" in first
    assert farm.run() == []

    # One file is gone, one is cut short, one has other bytes in it: what comes out is the same.
    farm.file("libvec-1.4").unlink()
    cut = next(name for name in first[:-1] if name != "libvec-1.4")
    os.truncate(farm.file(cut), 100)
    with farm.file(first[-1]).open("r+b") as file:
        file.write(b"damaged")
    assert sorted(farm.run()) == sorted({"libvec-1.4", cut, first[-1]})
    assert farm.reasons() == {}

    # A file that changes nothing of the package, and one that does.
    libvec = farm.tree / "devel/libvec"
    (libvec / "files").mkdir(exist_ok=True)
    (libvec / "files/unused").write_text("nobody reads it\n")
    assert farm.run() == ["libvec-1.4"]
    assert farm.reasons()["libvec-1.4"] == ["file devel/libvec/files/unused is new"]
    with (libvec / "DESCR").open("a") as text:
        text.write("It can do even more.\n")
    again = farm.run()
    assert again[0] == "libvec-1.4"
    assert first[-1] in again
    said = farm.reasons()
    assert said["libvec-1.4"] == ["file devel/libvec/DESCR changed"]
    assert said[first[-1]] == [
        "requirement libvec-1.4 was built again, and what is in it is not the same"
    ]
    assert farm.run() == []
