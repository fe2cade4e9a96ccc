"""Bootstrap kits: made when needed, read when given."""

import io
import os
import tarfile

import pytest

from clusterbuild.kit import given_kit, inputs_digest, made_kit, mk_conf_settings
from clusterdep.api.errors import Fault

BOOTSTRAP = """#!/bin/sh
echo "$@" >>"${0%/*}/../calls"
while [ $# -gt 0 ]; do
    case $1 in
    --binary-kit) kit=$2 ;;
    --workdir) work=$2 ;;
    esac
    shift
done
mkdir "$work" || exit 1
[ ! -f "${0%/*}/fail" ] || { echo "no compiler"; exit 1; }
echo kit >"$kit"
"""


@pytest.fixture
def tree(tmp_path):
    made = tmp_path / "tree"
    (made / "bootstrap").mkdir(parents=True)
    (made / "bootstrap/bootstrap").write_text(BOOTSTRAP)
    (made / "mk").mkdir()
    (made / "mk/bsd.pkg.mk").write_text("# 1\n")
    return made


def calls(tree):
    path = tree / "calls"
    return path.read_text().splitlines() if path.exists() else []


async def test_made_once_until_something_changes(tree, tmp_path):
    first = await made_kit(tree, "/prefix", tmp_path / "kit", "")
    assert (first.prefix, first.pkgdb) == ("/prefix", "/prefix/pkgdb")
    assert first.path.read_text() == "kit\n"
    assert calls(tree)[0].startswith("--prefix /prefix --pkgdbdir /prefix/pkgdb --workdir ")
    assert await made_kit(tree, "/prefix", tmp_path / "kit", "") == first
    assert len(calls(tree)) == 1
    (tree / "mk/bsd.pkg.mk").write_text("# 2\n")
    second = await made_kit(tree, "/prefix", tmp_path / "kit", "")
    other = await made_kit(tree, "/other", tmp_path / "kit", "")
    assert len({first.path, second.path, other.path}) == 3
    assert len(calls(tree)) == 3
    left = [path.name for path in (tmp_path / "kit").iterdir() if path.suffix != ".tgz"]
    assert left == []


async def test_a_bootstrap_that_fails(tree, tmp_path):
    (tree / "bootstrap/fail").write_text("")
    with pytest.raises(Fault) as caught:
        await made_kit(tree, "/prefix", tmp_path / "kit", "")
    assert "(exit status 1):\nno compiler" in caught.value.what
    assert caught.value.exit_code == os.EX_UNAVAILABLE
    (tree / "bootstrap/fail").unlink()
    assert (await made_kit(tree, "/prefix", tmp_path / "kit", "")).path.exists()


def test_the_digest_is_about_names_and_contents(tree):
    before = inputs_digest(tree, ("/prefix",))
    assert inputs_digest(tree, ("/prefix",)) == before
    assert inputs_digest(tree, ("/other",)) != before
    (tree / "mk/bsd.pkg.mk").rename(tree / "mk/other.mk")
    assert inputs_digest(tree, ("/prefix",)) != before


def write_kit(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


MK_CONF = ".ifdef BSD_PKG_MK\nLOCALBASE?=\t/usr/pkg\nPKG_DBDIR=\t/usr/pkg/pkgdb # here\n.endif\n"


def test_a_given_kit_says_where_it_belongs(tmp_path):
    path = write_kit(
        tmp_path / "kit.tgz", {"./usr/pkg/sbin/pkg_add": "", "usr/pkg/etc/mk.conf": MK_CONF}
    )
    found = given_kit(path, "")
    assert (found.prefix, found.pkgdb) == ("/usr/pkg", "/usr/pkg/pkgdb")
    bare = write_kit(tmp_path / "bare.tgz", {"opt/p/sbin/pkg_add": ""})
    assert given_kit(bare, "").prefix == "/opt/p"
    assert given_kit(bare, "").pkgdb == ""


@pytest.mark.parametrize(
    ("files", "prefix", "part"),
    [
        ({"a/sbin/pkg_add": "", "b/sbin/pkg_add": ""}, "", "it has /a, /b"),
        ({"README": ""}, "", "no prefix with sbin/pkg_add"),
        ({"a/sbin/pkg_add": ""}, "/b", "is for the prefix /a, and not for /b"),
    ],
)
def test_kits_that_do_not(tmp_path, files, prefix, part):
    with pytest.raises(Fault, match=part):
        given_kit(write_kit(tmp_path / "kit.tgz", files), prefix)


def test_what_is_no_kit(tmp_path):
    with pytest.raises(Fault, match="there is no bootstrap kit"):
        given_kit(tmp_path / "none.tgz", "")
    (tmp_path / "junk.tgz").write_bytes(b"\x1f\x8bjunk")
    with pytest.raises(Fault, match="is no bootstrap kit"):
        given_kit(tmp_path / "junk.tgz", "")
    cut = write_kit(tmp_path / "kit.tgz", {"a/sbin/pkg_add": "x" * 100000})
    cut.write_bytes(cut.read_bytes()[:60])
    with pytest.raises(Fault, match="is no bootstrap kit"):
        given_kit(cut, "")


def test_mk_conf():
    assert mk_conf_settings(b"LOCALBASE=${X}/pkg\nPKG_DBDIR = relative\n") == {}
    assert mk_conf_settings(MK_CONF.encode())["LOCALBASE"] == "/usr/pkg"
