"""Package files of another system, taken over by a real daemon, through the command line."""

import json
import os

import pytest
from test_build_cli import clusterbuild

NAMES = ("foo-1.0", "bar-1.0", "cut-1.0", "wrong-1.0", "old-0.9")


@pytest.fixture
def packages(tmp_path, sample):
    """A packages directory as pbulk leaves it, with everything that may be wrong in it."""
    there = tmp_path / "packages/All"
    there.mkdir(parents=True)
    for name in NAMES:
        sample(pkgname=name).write(there / f"{name}.tgz")
    os.truncate(there / "cut-1.0.tgz", (there / "cut-1.0.tgz").stat().st_size - 30)
    sample(pkgname="other-1.0").write(there / "wrong-1.0.tgz")
    (there / "pkg_summary.gz").write_bytes(b"")
    (there / "directory.tgz").mkdir()
    return there.parent


async def test_what_is_whole_and_known_is_taken_over(world, packages, tmp_path):
    world.clusterdep.packages = ["foo-1.0", "bar-1.0", "cut-1.0", "wrong-1.0", "lost-1.0"]
    state = world.settings.state
    code, out, err = await clusterbuild(
        "import", "test", str(packages), "--by", "pbulk", state=state
    )
    assert code == os.EX_OK
    assert out == "2 packages taken over, 0 known before, 3 refused, 0 without a file\n"
    assert "refused cut-1.0.tgz: it is not a whole archive" in err
    assert "refused wrong-1.0.tgz: it is other-1.0, and wrong-1.0 was asked for" in err
    assert "refused old-0.9.tgz: no record of the profile has this name" in err
    assert "refused pkg_summary.gz" not in err
    assert world.names("All")[:2] == ["bar-1.0.tgz", "foo-1.0.tgz"]
    assert len(world.names("pool")) == 2
    (header,) = world.clusterdep.taken_over
    assert (header.profile, header.by, header.dispatcher) == ("test", "pbulk", "farm")
    foo = next(r for r in world.clusterdep.artifacts.values() if r.artifact.pkgname == "foo-1.0")
    assert len(foo.artifact.content_digest) == 64
    assert foo.artifact.summary.startswith(b"PKGNAME=foo-1.0\n")

    listed = tmp_path / "success"
    listed.write_text("foo-1.0\nlost-1.0\n")
    code, out, err = await clusterbuild(
        "import", "test", str(packages / "All"), "--names", str(listed), "--json", state=state
    )
    told = json.loads(out)
    assert (code, told["absent"], told["refused"]) == (os.EX_OK, ["lost-1.0"], [])
    assert f"lost-1.0: there is no file of it in {packages}/All" in err


async def test_links_cost_no_space(world, packages):
    world.clusterdep.packages = ["foo-1.0"]
    code, out, _ = await clusterbuild(
        "import", "test", str(packages), "--link", state=world.settings.state
    )
    assert (code, out.split()[0]) == (os.EX_OK, "1")
    assert (packages / "All/foo-1.0.tgz").stat().st_nlink == 3  # its own, pool, All


async def test_what_cannot_be_imported_is_said(world, packages, tmp_path):
    state = world.settings.state
    code, _, err = await clusterbuild("import", "test", str(tmp_path / "none"), state=state)
    assert (code, "is no directory on the dispatcher's machine" in err) == (os.EX_DATAERR, True)
    words = ("import", "test", str(packages), "--names", "/nonexistent")
    code, _, err = await clusterbuild(*words, state=state)
    assert (code, err) == (os.EX_NOINPUT, "clusterbuild: /nonexistent: No such file or directory\n")
    code, out, _ = await clusterbuild("import", "test", str(packages), state=state)
    assert (code, out.split()[0]) == (os.EX_OK, "0")
    assert world.clusterdep.taken_over == []
