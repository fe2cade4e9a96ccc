"""What logs show, and which words stand for it: a case for each."""

from __future__ import annotations

import pytest
from onhost_fakes import FakeTree, OnHost

#: stage, what make does there, evidence, details.
CASES = [
    ("build", "exit 3", {"exit"}, {}),
    ("build", "kill -9 $$PPID", {"signal"}, {"SIGNAL": "9"}),
    ("build", "echo 'cc: error: No space left on device'; exit 1", {"exit", "no-space"}, {}),
    (
        "build",
        "echo 'cc: fatal error: Killed signal terminated program cc1'; exit 1",
        {"exit", "memory"},
        {},
    ),
    ("build", "echo 'ld: virtual memory exhausted'; exit 1", {"exit", "memory"}, {}),
    ("build", "echo 'cp: x: Input/output error'; exit 1", {"exit", "disk-error"}, {}),
    ("build", "echo 'touch: x: Read-only file system'; exit 1", {"exit", "disk-error"}, {}),
    (
        "configure",
        "echo '=> Full dependency libx>=1.0: NOT found'; exit 1",
        {"exit", "unlisted"},
        {"REQUIREMENT": "libx>=1.0"},
    ),
    (
        "checksum",
        "echo 'Trying http://a.example/x and ftp://b.example:21/y/'; "
        "echo 'Trying http://a.example/z'; "
        "echo 'fetch: Unable to fetch expected file x-1.tar.gz'; exit 1",
        {"exit", "fetch"},
        {"DISTFILE": "x-1.tar.gz", "SITES": "a.example b.example:21"},
    ),
    (
        "checksum",
        "echo 'Trying http://a.example/x'; "
        "echo 'fetch: Unable to fetch expected file x-1.tar.gz'; "
        "echo 'Trying http://b.example/x'; "
        "echo 'checksum: Checksum SHA1 mismatch for x-1.tar.gz'; exit 1",
        {"exit", "checksum"},
        {"DISTFILE": "x-1.tar.gz", "SITES": "a.example b.example"},
    ),
    (
        "checksum",
        "for n in 1 2 3 4 5 6 7; do echo Trying http://$$n.example/x; done; "
        "echo 'curl: (22) The requested URL returned error: 404'; "
        "echo 'fetch: Unable to fetch expected file x-1.tar.gz'; exit 1",
        {"exit", "fetch"},
        {
            "SITES": "1.example 2.example 3.example 4.example 5.example and 2 more",
            "MESSAGE": "checksum ended with status 1: "
            "curl: (22) The requested URL returned error: 404",
        },
    ),
    ("package", "rm ${STAGE_PKGFILE}", {"exit", "no-package"}, {}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{'-'.join(sorted(case[2]))}")
def test_evidence(
    any_host: OnHost, tree: FakeTree, case: tuple[str, str, set[str], dict[str, str]]
) -> None:
    stage, command, evidence, details = case
    tree.package("case", **{f"DO_{stage.upper()}": command})
    result = any_host.build("case", any_host.job("case", tree, "test/case"))
    assert (result["OUTCOME"], result["STAGE"]) == ("failed", stage)
    assert set(result["EVIDENCE"].split()) == evidence
    for name, value in details.items():
        assert result[name] == value


@pytest.mark.parametrize(
    ("said", "sites"),
    [
        ("echo fetch: Unable to fetch expected file x-1.tar.gz", "a.example b.example:21"),
        ("echo '=> Fetching x-1.tar.gz'; echo Checksum SHA1 mismatch for x-1.tar.gz", "a.example"),
        ("echo Checksum SHA1 mismatch for x-1.tar.gz", "/nowhere/distfiles"),
    ],
)
def test_where_a_distfile_is_from_where_no_program_tells(
    any_host: OnHost, tree: FakeTree, said: str, sites: str
) -> None:
    places = "http://a.example/pub/ ftp://b.example:21/"
    tree.package("case", MASTER_SITES=places, DO_CHECKSUM=f"{said}; exit 1")
    text = any_host.job("case", tree, "test/case", DISTDIR="/nowhere/distfiles")
    result = any_host.build("case", text)
    assert result["DISTFILE"] == "x-1.tar.gz"
    assert result["SITES"].startswith(sites)


def test_requirements(any_host: OnHost, tree: FakeTree) -> None:
    tree.package("case")
    broken = tree.root.parent / "broken-1.0.tgz"
    broken.write_bytes(b"no package")
    needs = tree.root.parent / "needs-1.0.tgz"
    tree.package("needs", requires=["absent-1.0"])
    any_host.build("n", any_host.job("n", tree, "test/needs", BOOTSTRAP="yes"))
    needs.write_bytes((any_host.directory("n") / "out" / "needs-1.0.tgz").read_bytes())
    for attempt, line, words, requirement in (
        ("damaged", any_host.require(broken), {"exit", "requirement", "damaged"}, ""),
        ("absent", any_host.require(needs), {"exit", "requirement"}, "absent-1.0"),
    ):
        result = any_host.build(attempt, any_host.job(attempt, tree, "test/case", line))
        assert (result["OUTCOME"], result["STAGE"]) == ("failed", "depends")
        assert set(result["EVIDENCE"].split()) == words
        assert result.get("REQUIREMENT", "") == requirement


def test_what_the_host_lacks(any_host: OnHost, tree: FakeTree) -> None:
    tree.package("case")
    text = any_host.job("make", tree, "test/case", MAKE="nosuchmake")
    result = any_host.build("make", text)
    assert (result["STAGE"], result["EXIT"]) == ("pre-clean", "127")
    assert set(result["EVIDENCE"].split()) == {"exit", "tool"}
    assert "nosuchmake" in result["TOOL"]
    result = any_host.build("gone", any_host.job("gone", tree, "test/gone"))
    assert result["STAGE"] == "pre-clean"
    assert set(result["EVIDENCE"].split()) == {"exit", "tree"}


def test_a_bootstrap_package_is_not_installed(any_host: OnHost, tree: FakeTree) -> None:
    tree.package("boot")
    text = any_host.job("boot", tree, "test/boot", BOOTSTRAP="yes")
    assert any_host.build("boot", text)["OUTCOME"] == "built"
    assert "no test" in any_host.log("boot", "package")
    assert "no test" in any_host.log("boot", "deinstall")


def test_messages_hold_nothing_that_harms_a_terminal(any_host: OnHost, tree: FakeTree) -> None:
    noise = tree.root / "noise"
    noise.write_bytes(b"error: \033[31mred\007 \303\251 it's\n")
    tree.package("esc", DO_BUILD=f"cat {noise}; exit 1")
    result = any_host.build("esc", any_host.job("esc", tree, "test/esc"))
    assert result["MESSAGE"] == "build ended with status 1: error: [31mred  it's"
