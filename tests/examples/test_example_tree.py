"""The example tree behaves as pkgsrc does, seen with real make and its own package tools."""

import hashlib
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from example_tree import (
    KEYS,
    OPTIONAL_KEYS,
    TREE,
    Done,
    Place,
    category_list,
    contents,
    run,
    split_records,
    state_of_tree,
)

SHELLS = [
    shell
    for shell in ("/bin/sh", "dash", "mksh", "yash", "busybox sh")
    if shutil.which(shell.split()[0])
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A place with a kit; at the end the tree must be as it was."""
    before = state_of_tree()
    made = Place(tmp_path_factory.mktemp("tree"))
    done = made.bootstrap("--quiet")
    assert (done.exit, done.said) == (0, ""), done.said
    assert not made.prefix.exists(), "making a kit wrote to the prefix"
    made.fresh_prefix()
    yield made
    assert state_of_tree() == before


@pytest.fixture(scope="module")
def scanned(place: Place) -> dict[str, Done]:
    """pbulk-index of every pkgpath, those of the category broken too."""
    place.fresh_prefix()
    return {
        f"{category}/{name}": run(["bmake", "pbulk-index"], TREE / category / name, place.env)
        for category in [*category_list(place), "broken"]
        for name in category_list(place, category)
    }


@pytest.fixture(scope="module")
def packages(place: Place) -> dict[str, Path]:
    """A few packages that require each other, built by the stages of a bulk build."""
    digest = "digest-20260110"
    return {
        "digest": place.build("pkgtools/digest"),
        "docgen": place.build("textproc/docgen"),
        "wordlist": place.build("textproc/wordlist"),
        "libsum": place.build("devel/libsum"),
        "libsum-lite": place.build("devel/libsum-lite"),
        "libvec": place.build("devel/libvec"),
        "calc": place.build("math/calc", digest),
        "spellbee": place.build("textproc/spellbee", digest, "wordlist-2026.2", "libvec-1.4"),
        "tjson": place.build("textproc/tjson", "docgen-1.1", "libvec-1.4"),
        "tjq": place.build("textproc/tjq", "docgen-1.1", "libvec-1.4", "tjson-0.9nb2"),
    }


# --- the kit


def test_the_kit_is_relative_to_the_root_and_holds_the_tools(place: Place) -> None:
    with tarfile.open(place.kit) as kit:
        members = {member.name: member for member in kit}
    top = f".{place.prefix}"
    assert all(name == top or name.startswith(top + "/") for name in members)
    for tool in ("pkg_add", "pkg_admin", "pkg_create", "pkg_delete", "pkg_info"):
        assert members[f"{top}/sbin/{tool}"].mode & 0o111
    assert f"{top}/etc/mk.conf" in members
    assert f"{top}/pkgdb/pkg_install-20260901/+CONTENTS" in members
    assert {member.uid for member in members.values()} == {0}


def test_the_fragment_ends_up_in_mk_conf(tmp_path: Path) -> None:
    (tmp_path / "fragment").write_text("ACCEPTABLE_LICENSES+=\tshrinkwrap-license\n")
    place = Place(tmp_path)
    assert place.bootstrap("--mk-fragment", str(tmp_path / "fragment")).exit == 0
    place.fresh_prefix()
    shown = place.make("broken/licence", "show-var", "VARNAME=PKG_FAIL_REASON")
    assert shown.out.strip() == ""


@pytest.mark.parametrize(
    ("args", "status", "text"),
    [
        (["--nonsense"], 64, "unknown option --nonsense"),
        (["--prefix"], 64, "--prefix wants a value"),
        (["--prefix", "relative"], 64, "must be absolute"),
        (["--prefix", "/with blank"], 1, "stumble"),
        (["--prefix", "/p", "--workdir", "."], 1, "exists"),
        (["--prefix", "/p", "--mk-fragment", "/nonexistent/file"], 1, "cannot read"),
    ],
)
def test_bootstrap_says_what_is_wrong(
    tmp_path: Path, args: list[str], status: int, text: str
) -> None:
    argv = [str(TREE / "bootstrap" / "bootstrap"), *args]
    done = run(argv, tmp_path, {"PATH": "/usr/bin:/bin"})
    assert done.exit == status
    assert text in done.err
    assert contents(tmp_path) == set()


# --- the lists and the records


def test_every_package_is_listed_and_broken_is_not(place: Place) -> None:
    categories = category_list(place)
    assert "broken" not in categories
    for category in [*categories, "broken"]:
        made = {path.parent.name for path in (TREE / category).glob("*/Makefile")}
        assert set(category_list(place, category)) == made


def test_records_have_all_keys_in_order(scanned: dict[str, Done]) -> None:
    failed = {pkgpath for pkgpath, done in scanned.items() if done.exit != 0}
    assert failed == {"broken/scan-error"}
    names = []
    for done in scanned.values():
        for record in split_records(done.out) if done.exit == 0 else []:
            keys = tuple(key for key, _ in record)
            assert keys[: len(KEYS)] == KEYS
            rest = keys[len(KEYS) :]
            assert rest == tuple(key for key in OPTIONAL_KEYS if key in rest)
            names.append(record[0][1])
    assert len(names) >= 45
    assert all(re.fullmatch(r"[a-z0-9_-]+-[0-9][a-z0-9.]*", name) for name in names)


def test_the_broken_makefile_gives_no_record_but_an_error(scanned: dict[str, Done]) -> None:
    done = scanned["broken/scan-error"]
    assert done.exit == 1
    assert "PKGNAME=" not in done.out
    assert "options.mk" in done.err and "Fatal errors encountered" in done.err


def test_requirements_name_directories_that_exist(scanned: dict[str, Done]) -> None:
    seen = set()
    for pkgpath, done in scanned.items():
        for record in split_records(done.out) if done.exit == 0 else []:
            for token in dict(record)["ALL_DEPENDS"].split():
                pattern, _, directory = token.partition(":")
                assert directory.startswith("../../") and pattern
                assert (TREE / pkgpath / directory / "Makefile").exists(), token
                seen.add(pattern)
    assert {"{libsum,libsum-lite}-[0-9]*", "libvec>=1.2<2", "docgen>=1.0<2"} <= seen


def test_build_requirements_come_before_full_ones(scanned: dict[str, Done]) -> None:
    record = dict(split_records(scanned["textproc/tjq"].out)[0])
    assert record["ALL_DEPENDS"].split() == [
        "docgen>=1.0:../../textproc/docgen",
        "libvec>=1.2<2:../../devel/libvec",
        "tjson>=0.8:../../textproc/tjson",
        "tjson>=0.9nb2:../../textproc/tjson",
    ]
    spellbee = dict(split_records(scanned["textproc/spellbee"].out)[0])
    assert spellbee["PKGNAME"] == "spellbee-0.3nb1"
    assert spellbee["ALL_DEPENDS"].startswith("digest>=20010302:../../pkgtools/digest  ")


def test_scan_depends_names_every_makefile_that_was_read(
    place: Place, scanned: dict[str, Done]
) -> None:
    record = dict(split_records(scanned["textproc/tjq"].out)[0])
    files = record["SCAN_DEPENDS"].split()
    assert all((TREE / "textproc/tjq" / file).exists() for file in files)
    assert {
        "Makefile",
        "../../mk/bsd.pkg.mk",
        "../../mk/pbulk/pbulk-index.mk",
        "../../textproc/tjson/buildlink3.mk",
        "../../devel/libvec/buildlink3.mk",
        f"{place.prefix}/etc/mk.conf",
    } <= set(files)
    assert any(file.startswith("/") and file.endswith("/sys.mk") for file in files)


def multi_versions(text: str) -> list[tuple[str, str]]:
    """PKGNAME and MULTI_VERSION of each record."""
    pairs = [dict(record) for record in split_records(text)]
    return [(record["PKGNAME"], record.get("MULTI_VERSION", "none")) for record in pairs]


def test_versions_come_as_a_product_with_the_default_first(scanned: dict[str, Done]) -> None:
    assert multi_versions(scanned["databases/tl-recdb"].out) == [
        ("tl13-recdb-0.4", " TINYLANG_VERSION_REQD=13 RECDB_VERSION_REQD=2"),
        ("tl13-recdb-0.4", " TINYLANG_VERSION_REQD=13 RECDB_VERSION_REQD=1"),
        ("tl12-recdb-0.4", " TINYLANG_VERSION_REQD=12 RECDB_VERSION_REQD=2"),
        ("tl12-recdb-0.4", " TINYLANG_VERSION_REQD=12 RECDB_VERSION_REQD=1"),
    ]
    requirements = [
        dict(r)["ALL_DEPENDS"] for r in split_records(scanned["databases/tl-recdb"].out)
    ]
    assert [re.findall("recdb([12])-", text) for text in requirements] == [["2"], ["1"]] * 2


def test_a_single_accepted_version_takes_part_and_no_multi_pkg_turns_it_off(
    place: Place, scanned: dict[str, Done]
) -> None:
    hanoi = [("tl13-hanoi-0.2", " TINYLANG_VERSION_REQD=13")]
    assert multi_versions(scanned["games/tl-hanoi"].out) == hanoi
    assert multi_versions(scanned["meta-pkgs/text-suite"].out) == [("text-suite-2026", "none")]
    argv = ["bmake", "NO_MULTI_PKG=yes", "pbulk-index"]
    done = run(argv, TREE / "misc/tl-hello", place.env)
    assert multi_versions(done.out) == [("tl13-hello-1.0", "none")]


def test_the_default_of_the_user_comes_first(place: Place) -> None:
    argv = ["bmake", "TINYLANG_VERSION_DEFAULT=12", "pbulk-index"]
    done = run(argv, TREE / "misc/tl-hello", place.env)
    assert [name for name, _ in multi_versions(done.out)] == ["tl12-hello-1.0", "tl13-hello-1.0"]


def test_reasons_and_other_marks(scanned: dict[str, Done]) -> None:
    def value(pkgpath: str, key: str) -> str:
        return dict(split_records(scanned[pkgpath].out)[0])[key]

    assert re.fullmatch(
        '"skipped-1.0 is not available for [^ ]+-[^ ]+-[^ ]+"',
        value("broken/skipped", "PKG_SKIP_REASON"),
    )
    assert value("broken/licence", "PKG_FAIL_REASON").startswith('"licence-1.0 has an unaccept')
    assert value("broken/marked-broken", "PKG_FAIL_REASON").startswith('"marked-broken-1.0 is mark')
    assert value("math/primes", "NO_BIN_ON_FTP") == value("math/primes", "RESTRICTED") != ""
    assert value("pkgtools/pkg_install", "BOOTSTRAP_PKG") == "yes"
    assert value("net/pingpong", "USERGROUP_PHASE") == "pre-install"
    assert value("archivers/rle", "USE_DESTDIR") == "destdir"
    assert value("archivers/rle", "MAKE_JOBS_SAFE") == "no"
    assert value("textproc/docgen", "PBULK_WEIGHT") == "200"


def test_the_cycle_is_one(scanned: dict[str, Done]) -> None:
    needs = {
        name: dict(split_records(scanned[f"broken/cycle-{name}"].out)[0])["ALL_DEPENDS"].strip()
        for name in "abc"
    }
    for name, other in zip("abc", "bca", strict=True):
        assert needs[name] == f"cycle-{other}>=1.0:../../broken/cycle-{other}"


# --- checksums of the tree itself, by another program than its own


def test_distinfo_is_right() -> None:
    checked = 0
    for distinfo in TREE.glob("*/*/distinfo"):
        for name, hexdigest in re.findall(r"^SHA256 \((.*)\) = (.*)$", distinfo.read_text(), re.M):
            data = (TREE / "distfiles" / name).read_bytes()
            assert hashlib.sha256(data).hexdigest() == hexdigest
            assert f"Size ({name}) = {len(data)} bytes" in distinfo.read_text()
            checked += 1
        for name, hexdigest in re.findall(r"^SHA1 \((.*)\) = (.*)$", distinfo.read_text(), re.M):
            data = (distinfo.parent / "patches" / name).read_bytes()
            assert hashlib.sha1(data).hexdigest() == hexdigest
            checked += 1
    assert checked == 4


# --- building


def test_a_chain_is_built_and_its_program_runs(place: Place, packages: dict[str, Path]) -> None:
    place.fresh_prefix()
    assert place.tool("pkg_add", "tjq", "spellbee").said == ""
    listed = place.tool("pkg_info").out.split("\n")
    assert [line.split()[0] for line in listed if line] == [
        "libvec-1.4",
        "pkg_install-20260901",
        "spellbee-0.3nb1",
        "tjq-1.0",
        "tjson-0.9nb2",
        "wordlist-2026.2",
    ]
    shell = f"""
        printf '{{"a": [1, {{"b": "deep"}}]}}' | {place.prefix}/bin/tjq -r a.1.b
        echo 'The packge was build' | {place.prefix}/bin/spellbee
    """
    assert run(["sh", "-c", shell], place.root, place.env).out == "deep\npackge\n"


def test_a_variant_is_built_with_its_words(place: Place, packages: dict[str, Path]) -> None:
    words = ("TINYLANG_VERSION_REQD=12",)
    place.build("lang/tinylang12")
    made = place.build("misc/tl-hello", "tinylang12-1.2.7", words=words)
    assert made.name == "tl12-hello-1.0.tgz"
    assert place.tool("pkg_add", "tl12-hello").exit == 0
    done = run([f"{place.prefix}/bin/tl12-hello", "you"], place.root, place.env)
    assert done.out == "hello, you\n"


def test_a_package_file_has_its_metadata_first(packages: dict[str, Path]) -> None:
    with tarfile.open(packages["tjson"], "r:gz") as archive:
        members = archive.getmembers()
        text = archive.extractfile("+CONTENTS")
        assert text is not None
        lines = text.read().decode().splitlines()
    assert [member.name for member in members] == [
        "+CONTENTS",
        "+COMMENT",
        "+DESC",
        "+BUILD_VERSION",
        "+BUILD_INFO",
        "+SIZE_PKG",
        "+SIZE_ALL",
        "include/tjson.h",
        "lib/libtjson.so",
        "lib/libtjson.so.0",
        "share/doc/tjson/tjson.html",
    ]
    assert {member.uid for member in members} == {0}
    assert lines[1:4] == ["@name tjson-0.9nb2", "@blddep libvec-1.4", "@pkgdep libvec>=1.2<2"]
    assert lines[0].startswith("@cwd /") and lines.count(lines[0]) == 2
    assert lines[4] == "include/tjson.h" and re.fullmatch("@comment MD5:[0-9a-f]{32}", lines[5])
    assert lines[7] == "@comment Symlink:libtjson.so.0"
    assert lines[-2:] == ["@ignore", "+SIZE_ALL"]


def test_pkg_info_gives_a_summary(place: Place, packages: dict[str, Path]) -> None:
    done = place.tool("pkg_info", "-X", str(packages["tjson"]))
    keys = [line.partition("=")[0] for line in done.out.rstrip("\n").split("\n")]
    once = sorted(set(keys), key=keys.index)
    assert [key for key in once if key not in ("PROVIDES", "REQUIRES")] == [
        "PKGNAME",
        "DEPENDS",
        "COMMENT",
        "SIZE_PKG",
        "BUILD_DATE",
        "CATEGORIES",
        "HOMEPAGE",
        "LICENSE",
        "MACHINE_ARCH",
        "OPSYS",
        "OS_VERSION",
        "PKGPATH",
        "PKGTOOLS_VERSION",
        "FILE_NAME",
        "FILE_SIZE",
        "DESCRIPTION",
    ]
    assert done.out.endswith("\n\n")
    assert f"\nFILE_SIZE={packages['tjson'].stat().st_size}\n" in done.out
    assert re.search(r"^BUILD_DATE=\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+]0000$", done.out, re.M)
    conflicting = place.tool("pkg_info", "-X", str(packages["libsum"]))
    assert "\nCONFLICTS=libsum-lite-[0-9]*\n" in "\n" + conflicting.out


def test_a_missing_requirement_fails_at_once(place: Place) -> None:
    place.fresh_prefix()
    done = place.make("textproc/tjson", "configure")
    assert done.exit == 1
    assert "=> Tool dependency docgen-[0-9]*: NOT found\n" in done.out
    assert "don't know how to make /nonexistent" in done.said
    assert not list(place.root.glob("obj/textproc/tjson/work/tjson*"))
    assert place.make("textproc/tjson", "clean").exit == 0


def test_what_is_there_is_said_too(place: Place, packages: dict[str, Path]) -> None:
    place.fresh_prefix()
    assert place.tool("pkg_add", "wordlist", "digest").exit == 0
    done = place.make("textproc/spellbee", "configure")
    assert done.exit == 1
    assert "=> Full dependency wordlist>=2026: found wordlist-2026.2\n" in done.out
    assert "=> Full dependency libvec>=1.2<2: NOT found\n" in done.out
    assert place.make("textproc/spellbee", "clean").exit == 0


@pytest.mark.parametrize(
    ("pkgpath", "text"),
    [
        ("broken/skipped", "This package has set PKG_SKIP_REASON:\nERROR: skipped-1.0 is not"),
        ("broken/marked-broken", "PKG_FAIL_REASON:\nERROR: marked-broken-1.0 is marked"),
        ("broken/licence", "PKG_FAIL_REASON:\nERROR: licence-1.0 has an unacceptable"),
        ("broken/compile-error", "forty_two"),
        ("broken/scan-error", "options.mk"),
        ("broken/unresolved", "=> Full dependency libvec>=9.0: NOT found"),
    ],
)
def test_broken_packages_fail_with_their_reason(place: Place, pkgpath: str, text: str) -> None:
    place.fresh_prefix()
    done = place.make(pkgpath, "package")
    assert done.exit == 1
    assert text in done.said
    place.make(pkgpath, "clean")


def test_good_packages_among_the_broken_are_built(place: Place, packages: dict[str, Path]) -> None:
    leaf = place.build("broken/good-leaf")
    assert leaf.name == "good-leaf-1.0.tgz"
    place.build("broken/good-on-top", "good-leaf-1.0", "libvec-1.4")


def test_a_wrong_checksum_fails_with_the_name(place: Place, packages: dict[str, Path]) -> None:
    place.fresh_prefix()
    assert place.tool("pkg_add", "digest").exit == 0
    altered = place.root / "altered"
    altered.mkdir()
    (altered / "calc-1.3.c").write_text("int main(void) { return 0; }\n")
    done = place.make("math/calc", f"DISTDIR={altered}", "checksum")
    assert done.exit == 1
    assert "Checksum SHA256 mismatch for calc-1.3.c" in done.err


def test_a_distfile_nobody_has_fails_with_the_name(place: Place, packages: dict[str, Path]) -> None:
    place.fresh_prefix()
    assert place.tool("pkg_add", "digest").exit == 0
    nowhere = [f"DISTDIR={place.root}/empty", "MASTER_SITE_LOCAL=file:///nonexistent/"]
    done = place.make("math/calc", *nowhere, "checksum")
    assert done.exit == 1
    assert "Unable to fetch expected file calc-1.3.c" in done.err
    assert contents(place.root / "empty") == set()


def test_targets_and_variables(place: Place) -> None:
    shown = place.make("math/calc", "show-vars", "VARNAMES=PKGNAME WRKDIR PKG_SUFX")
    assert shown.out == f"calc-1.3\n{place.root}/obj/math/calc/work\n.tgz\n"
    assert place.make("math/calc", "no-such-target").exit == 2
    assert place.make("net/pingpong", "create-usergroup").exit == 0
    unknown = place.make("net/pingpong", "PKG_USERS=no-such-user:none", "create-usergroup")
    assert unknown.exit != 0 and "no-such-user" in unknown.said


def test_a_name_with_a_blank_is_refused_before_anything_is_removed(place: Place) -> None:
    victim = place.root / "with"
    victim.mkdir()
    done = place.make("math/calc", f"WRKOBJDIR={place.root}/with blank", "clean")
    assert done.exit == 1 and "No blanks" in done.err
    assert victim.exists()


# --- the package tools


def test_a_truncated_package_shows_its_summary_but_is_not_installed(
    place: Place, packages: dict[str, Path]
) -> None:
    place.fresh_prefix()
    before = contents(place.prefix)
    whole = packages["libvec"].read_bytes()
    cut = place.root / "libvec-1.4.tgz"
    cut.write_bytes(whole[: len(whole) * 86 // 100])
    summary = place.tool("pkg_info", "-X", str(cut))
    assert summary.exit == 0 and summary.out.startswith("PKGNAME=libvec-1.4\n")
    added = place.tool("pkg_add", str(cut))
    assert added.exit == 1 and "1 package addition failed" in added.err
    assert contents(place.prefix) == before


@pytest.mark.parametrize("shell", SHELLS)
def test_adding_asking_and_deleting(place: Place, packages: dict[str, Path], shell: str) -> None:
    place.fresh_prefix()
    before = contents(place.prefix)

    def tool(name: str, *args: str) -> tuple[int, str]:
        done = place.tool(name, *args, shell=shell)
        return done.exit, done.said

    assert tool("pkg_add", "-K", f"{place.prefix}/pkgdb", "tjq-1.0") == (0, "")
    assert tool("pkg_add", "tjq-1.0")[0] == 0
    assert tool("pkg_info", "-E", "tjson>=0.9<1") == (0, "tjson-0.9nb2\n")
    assert tool("pkg_info", "-e", "nosuch-[0-9]*") == (1, "")
    assert tool("pkg_info", "-Q", "PKGPATH", "tjq") == (0, "textproc/tjq\n")
    assert tool("pkg_info", "-Q", "NO_SUCH_VARIABLE", "tjq") == (0, "")
    assert tool("pkg_info", "-qn", "tjson") == (0, "libvec>=1.2<2\n\n")
    assert tool("pkg_info", "-qN", "tjson") == (0, "libvec-1.4\n\n")
    assert tool("pkg_info", "-qR", "libvec") == (0, "tjson-0.9nb2\ntjq-1.0\n")
    assert tool("pkg_info", "-qL", "docgen-1.1")[0] == 1
    assert tool("pkg_info", "-qL", str(packages["docgen"]))[1].startswith(f"{place.prefix}/bin")
    assert tool("pkg_info", "-X", "nosuch") == (1, "pkg_info: can't find package `nosuch'\n")
    assert tool("pkg_admin", "check") == (0, "")
    automatic = place.prefix / "pkgdb" / "libvec-1.4" / "+INSTALLED_INFO"
    assert automatic.read_text() == "automatic=yes\n"

    status, said = tool("pkg_delete", "libvec")
    assert status == 1
    assert said == "Package `libvec-1.4' is still required by other packages:\n" + (
        "\ttjson-0.9nb2\n\ttjq-1.0\n"
    )
    assert tool("pkg_delete", "nosuch")[0] == 1
    status, said = tool("pkg_delete", "*")
    assert status == 1 and "marked as not for deletion:\n\tpkg_install-20260901\n" in said
    assert tool("pkg_delete", "-r", "libvec") == (0, "")
    assert contents(place.prefix) == before


def test_what_cannot_be_added(place: Place, packages: dict[str, Path]) -> None:
    place.fresh_prefix()
    missing = place.tool("pkg_add", "nosuch")
    assert missing.exit == 1
    assert missing.err == (
        "pkg_add: no pkg found for 'nosuch', sorry.\npkg_add: 1 package addition failed\n"
    )
    assert place.tool("pkg_add", "libsum").exit == 0
    conflict = place.tool("pkg_add", "libsum-lite")
    assert conflict.exit == 1
    assert "`libsum-lite-1.0' conflicts with `libsum-[0-9]*', and `libsum-2.1'" in conflict.err
    alone = place.root / "alone"
    alone.mkdir()
    shutil.copy(packages["tjson"], alone)
    env = place.env | {"PKG_PATH": str(alone)}
    done = run([f"{place.prefix}/sbin/pkg_add", "tjson-0.9nb2"], place.root, env)
    assert done.exit == 1
    assert "Can't install dependency libvec>=1.2<2" in done.err
    assert {path.name for path in (place.prefix / "pkgdb").iterdir()} == {
        "libsum-2.1",
        "pkg_install-20260901",
    }


def test_a_damaged_file_is_noticed(place: Place, packages: dict[str, Path]) -> None:
    place.fresh_prefix()
    assert place.tool("pkg_add", "wordlist").exit == 0
    (place.prefix / "share/dict/wordlist").write_text("nothing\n")
    done = place.tool("pkg_admin", "check")
    assert done.exit == 1 and "share/dict/wordlist" in done.err


def test_the_best_of_several_is_found(place: Place, packages: dict[str, Path]) -> None:
    some = place.root / "some"
    some.mkdir()
    for name in ("foo-1.9", "foo-1.10", "foo-1.10nb2", "foo-2.0rc1", "foo-bar-3", "foo-1.10.0nb2"):
        (some / f"{name}.tgz").touch()
    best = place.tool("pkg_admin", "lsbest", f"{some}/foo<2.0alpha")
    assert best.out == f"{some}/foo-1.10.0nb2.tgz\n"
    assert place.tool("pkg_admin", "lsall", f"{some}/foo-1.1*").out.count("\n") == 3


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("foo", "foo-1.0", True),  # here pkg_install differs from pbulk
        ("foo-[0-9]*", "foo-1.0nb3", True),
        ("foo-[0-9]*", "foo-bar-1.0", False),
        ("foo-1.0{,nb[0-9]*}", "foo-1.0nb12", True),
        ("foo-1.0{,nb[0-9]*}", "foo-1.0.1", False),
        ("foo>=1.0", "foo-1.0rc1", False),
        ("foo>1.0", "foo-1.0nb1", True),
        ("foo<=1.0", "foo-1.0nb1", False),
        ("foo>=1.0<2", "foo-2.0rc1", True),
        ("foo>=1.0<2", "foo-2", False),
        ("foo<2<3", "foo-2.5", True),
        ("foo==1.0", "foo-1.0", False),
        ("{foo>=1,bar-[0-9]*}", "bar-0.1", True),
        ("{a,b{c,d}}-[0-9]*", "bd-1", True),
        ("foo{,-gtk,-x11}>=7", "foo-gtk-7.0", True),
        ("lib*foo>=1.0", "libxfoo-1.0", False),
        ("foo>1.0rc1", "foo-1.0.rc1", True),
        ("foo>=1.0d", "foo-1.0dev", True),
        ("foo<1.0beta", "foo-1.0alphabeta", True),
        ("foo>=1.0pl1", "foo-1.0.1", True),
        ("{foo-1.0", "foo-1.0", False),
    ],
)
def test_patterns(place: Place, pattern: str, name: str, matches: bool) -> None:
    done = place.tool("pkg_admin", "pmatch", pattern, name)
    assert done.exit == (0 if matches else 1)
    assert done.out == ""


def test_the_readme_has_every_package_and_no_other(place: Place) -> None:
    text = (TREE.parent / "README.md").read_text()
    for category in category_list(place):
        named = set(re.findall(rf"^\|.*?`{category}/([a-z0-9_-]+)`", text, re.M))
        named |= set(re.findall(rf"^\|[^|]*, `{category}/([a-z0-9_-]+)`", text, re.M))
        assert named == set(category_list(place, category))
    broken = text[text.index("## What goes wrong") : text.index("## Where it is simpler")]
    assert set(category_list(place, "broken")) <= set(re.findall(r"`([a-z-]+)`", broken))
