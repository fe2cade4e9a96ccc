"""The small scripts that move files over ssh, and that put the others on a host, in each shell."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from onhost_fakes import OnHost

from clusterbuild.engines.files import pack
from clusterbuild.engines.host import INSTALL, ON_HOST
from clusterbuild.engines.runner import script_words
from clusterbuild.engines.ssh import ASK, DAMAGED, GIVE, INCOMPLETE, NOT_THERE, TAKE

DATA = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()
#: What the scripts add to PATH, where there may be other tools than the host is to have.
MORE_PATH = "$PATH:/usr/bin:/bin:/usr/sbin:/sbin:/usr/pkg/bin"


def run(host: OnHost, script: str, *words: str, stdin: bytes = b"") -> tuple[int, bytes]:
    """Exit status and output of a script as an engine runs it."""
    done = subprocess.run(
        script_words(str(host.shell), script.replace(MORE_PATH, "$PATH"), *words),
        input=stdin, capture_output=True, env=host.environment, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def ask(host: OnHost, target: Path) -> bytes:
    return run(host, ASK, str(target), str(len(DATA)))[1]


def test_the_scripts_leave_the_path_alone() -> None:
    assert MORE_PATH in ASK and MORE_PATH in TAKE and MORE_PATH in GIVE


def test_a_file_is_taken_once_whole_and_right(host: OnHost) -> None:
    target = host.base / "files" / SHA256
    part = target.with_name(f"{SHA256}.part")
    take = (str(target), str(len(DATA)), SHA256)
    assert ask(host, target) == b"0\n"
    # A link that broke.
    assert run(host, TAKE, *take, "0", stdin=DATA[:1000]) == (INCOMPLETE, b"")
    assert ask(host, target) == b"1000\n"
    # What was damaged on its way is not kept, nor what stands there from before.
    assert run(host, TAKE, *take, "1000", stdin=DATA[:-1000]) == (DAMAGED, b"")
    assert not part.exists() and not target.exists()
    part.write_bytes(b"something else")
    assert run(host, TAKE, *take, "0", stdin=DATA[:1000])[0] == INCOMPLETE
    assert run(host, TAKE, *take, "1000", stdin=DATA[1000:]) == (0, b"")
    assert target.read_bytes() == DATA
    assert not part.exists()
    assert ask(host, target) == b"whole\n"


def test_a_file_is_given_from_any_place(host: OnHost) -> None:
    source = host.base / "files/source"
    source.write_bytes(DATA)
    words = (str(source), str(len(DATA)))
    for at in (1, 2, 4097, len(DATA)):
        assert run(host, GIVE, *words, str(at)) == (0, DATA[at - 1 :])
    assert run(host, GIVE, str(source), "99", "1") == (DAMAGED, b"")
    link = host.base / "files/link"
    link.symlink_to(source)
    for other in (link, host.base / "files", host.base / "files/nothing"):
        assert run(host, GIVE, str(other), words[1], "1") == (NOT_THERE, b"")


def test_the_scripts_are_installed_once(host: OnHost) -> None:
    version, packed = pack(ON_HOST)
    there = host.base / "on_host" / version
    for stdin in (packed, b"not looked at any more"):
        assert run(host, INSTALL, str(host.base), version, stdin=stdin)[0] == 0
        assert (there / "supervisor").read_bytes() == (ON_HOST / "supervisor").read_bytes()
        assert [path.name for path in there.parent.iterdir()] == [version]
    assert run(host, INSTALL, str(host.base), "another", stdin=b"no archive")[0] != 0
    assert not (there.parent / "another").exists()
