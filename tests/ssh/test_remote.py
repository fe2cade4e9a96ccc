"""The link to a host, and transfers, over real sshd: what goes well, and what is said if not."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from sshd_hosts import Cluster, PortCluster

from clusterbuild import bulk as bulk_module
from clusterbuild.bulk import Bulk
from clusterbuild.connect import open_connection
from clusterbuild.engines import Kind
from clusterbuild.engines import ssh as ssh_module
from clusterbuild.engines.runner import RunnerError
from clusterbuild.engines.ssh import SshRunner
from clusterbuild.remote import Link
from clusterbuild.ssh_config import Way, resolve

#: Bytes that go over a connection of their own.
LARGE = 5_000_000


def way(cluster: Cluster, name: str = "p1", **more: object) -> Way:
    return Way(name, ssh_config=cluster.ssh_config, **more)  # type: ignore[arg-type]


MakeRunner = Callable[..., SshRunner]


@pytest_asyncio.fixture
async def make_runner(ports: PortCluster) -> AsyncIterator[MakeRunner]:
    """Runners, closed when the test ends."""
    async with contextlib.AsyncExitStack() as stack:

        def make(to: Way | None = None, sudo: tuple[str, ...] = ()) -> SshRunner:
            to = to or way(ports)
            runner = SshRunner(Link(to, to.address), Bulk(to, 2), sudo, "sh")
            stack.push_async_callback(runner.close)
            return runner

        yield make


@pytest_asyncio.fixture
async def runner(make_runner: MakeRunner) -> SshRunner:
    return make_runner()


async def until(condition: Callable[[], bool]) -> None:
    """Waits for something that must come to be."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  whoever brings it about knows nothing of us
            await asyncio.sleep(0.02)


def keygen(*words: str) -> str:
    """What ssh-keygen prints."""
    return subprocess.check_output(["ssh-keygen", *words], text=True, stderr=subprocess.PIPE)


async def refused(runner: SshRunner) -> str:
    """What is said of a host that is not to be talked to."""
    with pytest.raises(RunnerError) as caught:
        await runner.run(["true"], timeout=20)
    assert caught.value.kind is Kind.REFUSED
    assert caught.value.why.isprintable()
    return caught.value.why


# -- commands


async def test_commands(runner: SshRunner) -> None:
    done = await runner.run(
        ["sh", "-c", 'cat; printf "%s|" "$@"; echo oops >&2; exit 3', "sh", "a b", "", "c'\"$x;"],
        stdin=b"in\0put\n",
        timeout=20,
    )
    assert (done.status, done.out, done.err) == (3, b"in\0put\na b||c'\"$x;|", b"oops\n")


async def test_many_at_once(runner: SshRunner) -> None:
    """More than sshd allows sessions over one connection."""
    script = "sleep 0.1; echo $0"
    numbers = [str(number) for number in range(25)]
    every = [runner.run(["sh", "-c", script, number], timeout=60) for number in numbers]
    assert [done.out.decode().strip() for done in await asyncio.gather(*every)] == numbers


async def test_much_in_and_out(runner: SshRunner) -> None:
    data = random.Random(1).randbytes(3_000_000)
    script = "head -c 300000 /dev/zero >&2; cat"
    done = await runner.run(["sh", "-c", script], stdin=data, timeout=60, limit=len(data))
    assert (done.status, done.out, len(done.err)) == (0, data, 1 << 16)
    done = await runner.run(["sh", "-c", "exit 4"], stdin=data, timeout=60)
    assert done.status == 4, "a command may leave what it is given"


async def test_a_deadline(runner: SshRunner) -> None:
    began = time.monotonic()
    with pytest.raises(RunnerError, match="did not answer in time") as caught:
        await runner.run(["sleep", "60"], timeout=1)
    assert caught.value.kind is Kind.UNREACHABLE
    assert time.monotonic() - began < 20
    assert (await runner.run(["echo", "still"], timeout=20)).out == b"still\n"


async def test_no_more_than_is_wanted(runner: SshRunner) -> None:
    with pytest.raises(RunnerError) as caught:
        await runner.run(["yes"], timeout=20, limit=1000)
    assert caught.value.kind is Kind.BROKEN


async def test_an_end_without_a_status_is_no_answer(runner: SshRunner) -> None:
    with pytest.raises(RunnerError) as caught:
        await runner.run(["sh", "-c", "echo half; kill -9 $$"], timeout=20)
    assert caught.value.kind is Kind.UNREACHABLE


async def test_a_connection_that_broke_is_opened_again(
    runner: SshRunner, ports: PortCluster
) -> None:
    slow = asyncio.create_task(runner.run(["sh", "-c", "echo half; sleep 60"], timeout=60))
    await runner.run(["true"], timeout=20)
    await asyncio.to_thread(ports.restart_sshd, "p1")
    with pytest.raises(RunnerError) as caught:
        await slow
    assert caught.value.kind is Kind.UNREACHABLE
    assert (await runner.run(["echo", "again"], timeout=20)).out == b"again\n"


async def test_a_host_that_is_off_is_not_tried_all_the_time(
    runner: SshRunner, ports: PortCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(ports.kill, "p1")
    tried = []
    monkeypatch.setattr(
        "clusterbuild.remote.open_connection",
        lambda *words: tried.append(1) or open_connection(*words),
    )
    for _ in range(50):
        with pytest.raises(RunnerError) as caught:
            await runner.run(["true"], timeout=20)
        assert caught.value.kind is Kind.UNREACHABLE
        assert "no connection to 127.0.0.1" in caught.value.why
    assert 1 <= len(tried) < 10
    await asyncio.to_thread(ports.power_on, "p1")
    for _ in range(100):
        with contextlib.suppress(RunnerError):
            await runner.run(["true"], timeout=20)
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it is not tried any more")


async def test_who_does_not_wait_any_more_is_not_in_the_way(runner: SshRunner, room: Path) -> None:
    """Commands that nobody waits for give back their sessions, once they end, and threads."""
    for number in range(12):
        script = f"echo >{room}/begun.{number}; exec sleep 1"
        task = asyncio.create_task(runner.run(["sh", "-c", script], timeout=60))
        await until((room / f"begun.{number}").exists)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    every = [runner.run(["true"], timeout=60) for _ in range(10)]
    assert {done.status for done in await asyncio.gather(*every)} == {0}


async def test_lines(runner: SshRunner, room: Path) -> None:
    script = f"echo one; echo; while [ ! -e {room}/go ]; do sleep 0.05; done; printf two"
    lines = runner.lines(["sh", "-c", script])
    assert [await anext(lines), await anext(lines)] == [b"one", b""]
    (room / "go").touch()
    assert [line async for line in lines] == [b"two"]


async def test_lines_that_end_badly(runner: SshRunner) -> None:
    with pytest.raises(RunnerError, match="oops") as caught:
        async for line in runner.lines(["sh", "-c", "echo one; echo oops >&2; exit 1"]):
            assert line == b"one"
    assert caught.value.kind is Kind.UNREACHABLE
    with pytest.raises(RunnerError) as caught:
        async for _ in runner.lines(["sh", "-c", "tr '\\0' x </dev/zero"]):
            pass
    assert caught.value.kind is Kind.BROKEN


async def test_lines_end_with_their_reader(runner: SshRunner, room: Path) -> None:
    script = f"echo $$; cat; echo over >{room}/over"
    lines = runner.lines(["sh", "-c", script])
    await anext(lines)
    await lines.aclose()
    await until((room / "over").exists)


async def test_sudo_stands_before_every_command(make_runner: MakeRunner, room: Path) -> None:
    """Files, too, are put and got as somebody else: here one who writes down what he does."""
    sudo = room / "sudo"
    sudo.write_text(
        f'#!/bin/sh\n[ "$1" = -n ] || exit 9\nshift\necho "$1" >>{room}/did\nexec "$@"\n'
    )
    sudo.chmod(0o755)
    runner = make_runner(sudo=(str(sudo), "-n"))
    assert (await runner.run(["echo", "x"], timeout=20)).out == b"x\n"
    assert [line async for line in runner.lines(["echo", "y"])] == [b"y"]
    await there_and_back(runner, room, LARGE)
    did = (room / "did").read_text().split()
    assert did == ["echo", "echo", "sh", "sh", "sh"]


# -- whom it talks to


async def test_a_host_that_is_not_known(
    make_runner: MakeRunner, ports: PortCluster, room: Path
) -> None:
    empty = room / "empty"
    for known in (empty, ports.directory / "p2/host_key.pub"):
        why = await refused(make_runner(way(ports, known_hosts=known)))
        assert why.startswith("its host key is not known: compare ssh-ed25519 SHA256:")
        assert f"ssh-keyscan -p {resolve(way(ports)).port} 127.0.0.1 >>{known}" in why
    assert not empty.exists(), "nothing is added by itself"
    listed = keygen("-lf", str(ports.directory / "p1/host_key.pub"))
    assert listed.split()[1] in why


async def test_a_host_key_that_changed(runner: SshRunner, ports: PortCluster, room: Path) -> None:
    assert (await runner.run(["true"], timeout=20)).status == 0
    before = ports.known_hosts.read_bytes()
    await asyncio.to_thread(ports.change_host_key, "p1")
    with contextlib.suppress(RunnerError):
        await runner.run(["true"], timeout=20)  # the connection it had
    why = await refused(runner)
    assert "its host key has changed" in why
    assert f"ssh-keygen -R 'p1' -f {ports.known_hosts}" in why
    (room / "large").write_bytes(bytes(LARGE))
    with pytest.raises(RunnerError) as caught:
        await Bulk(way(ports), 1).send(["cat"], room / "large", 0)
    assert caught.value.kind is Kind.REFUSED
    assert ports.known_hosts.read_bytes() == before
    await asyncio.to_thread(ports.trust, "p1")
    for _ in range(100):
        with contextlib.suppress(RunnerError):
            assert (await runner.run(["true"], timeout=20)).status == 0
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it is refused for ever")


async def test_a_key_that_was_revoked(make_runner: MakeRunner, ports: PortCluster) -> None:
    key = (ports.directory / "p1/host_key.pub").read_text()
    with ports.known_hosts.open("a") as file:
        file.write(f"@revoked * {key}")
    assert "its host key is not known" in await refused(make_runner())


async def test_a_known_key_by_name_and_port(
    make_runner: MakeRunner, ports: PortCluster, room: Path
) -> None:
    port = resolve(way(ports)).port
    kind, key = (ports.directory / "p1/host_key.pub").read_text().split()[:2]
    config = room / "config"
    config.write_text(f"IdentityFile {ports.directory}/key\nUser {resolve(way(ports)).user}\n")
    whole = f"[127.0.0.1]:{port}"
    for name in (whole, "127.0.0.1", hashed(whole, room), f"x,{whole[:-2]}*", "!10.*,127.0.0.?"):
        known = room / "known"
        known.write_text(f"# nothing\nrubbish\nx ssh-rsa rubbish\n{name} {kind} {key}\n")
        to = Way("127.0.0.1", port=port, ssh_config=config, known_hosts=known)
        assert (await make_runner(to).run(["true"], timeout=20)).status == 0
    other = Way("127.0.0.1", port=port, ssh_config=config, known_hosts=ports.known_hosts)
    assert f"ssh-keyscan -p {port} 127.0.0.1" in await refused(make_runner(other))


def hashed(name: str, room: Path) -> str:
    """A name as HashKnownHosts writes it."""
    file = room / "to-hash"
    file.write_text(f"{name} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{'A' * 43}\n")
    keygen("-qHf", str(file))
    return file.read_text().split()[0]


async def test_a_wrong_key(make_runner: MakeRunner, ports: PortCluster, room: Path) -> None:
    key = room / "other"
    keygen("-q", "-t", "ed25519", "-N", "", "-f", str(key))
    config = room / "config"
    text = ports.ssh_config.read_text()
    config.write_text(text.replace(f"IdentityFile {ports.directory}/key", ""))
    to = Way("p1", ssh_config=config, identity=key)
    why = await refused(make_runner(to))
    assert "does not let" in why and str(key) in why
    locked = room / "locked"
    keygen("-q", "-t", "ed25519", "-N", "secret", "-f", str(locked))
    assert "passphrase" in await refused(make_runner(Way("p1", ssh_config=config, identity=locked)))


async def test_a_name_that_nobody_knows(make_runner: MakeRunner, ports: PortCluster) -> None:
    runner = make_runner(Way("nosuch.invalid", ssh_config=ports.ssh_config))
    with pytest.raises(RunnerError, match=r"nosuch\.invalid") as caught:
        await runner.run(["true"], timeout=20)
    assert caught.value.kind is Kind.UNREACHABLE


async def test_a_configuration_that_is_wrong(make_runner: MakeRunner, room: Path) -> None:
    config = room / "config"
    config.write_text("NoSuchKeyword yes\n")
    why = await refused(make_runner(Way("p1", ssh_config=config)))
    assert why.startswith("ssh_config cannot be used") and "nosuchkeyword" in why.lower()


async def test_a_peer_that_never_speaks(make_runner: MakeRunner, room: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = room / "config"
        config.write_text("")
        port = silent.getsockname()[1]
        known = room / "known"
        to = Way("127.0.0.1", port, "x", config, known_hosts=known, connect_timeout=1.0)
        with pytest.raises(RunnerError) as caught:
            await make_runner(to).run(["true"], timeout=20)
        assert caught.value.kind is Kind.UNREACHABLE


async def test_over_another_host(make_runner: MakeRunner, ports: PortCluster, room: Path) -> None:
    """ProxyJump and ProxyCommand, for commands and for large files."""
    config = room / "config"
    plain = ports.ssh_config.read_text()
    for line in ("ProxyJump p2", f"ProxyCommand ssh -F {ports.ssh_config} -W %h:%p p2"):
        config.write_text(f"Host p1\n    {line}\n{plain}")
        runner = make_runner(Way("p1", ssh_config=config))
        assert (await runner.run(["echo", "hi"], timeout=20)).out == b"hi\n"
        await there_and_back(runner, room, LARGE)
    config.write_text(f"Host p1\n    ProxyJump p2\n{plain}")
    assert [hop.known_name for hop in resolve(Way("p1", ssh_config=config)).jumps] == ["p2"]
    await asyncio.to_thread(ports.change_host_key, "p2")
    why = await refused(make_runner(Way("p1", ssh_config=config)))
    assert why.startswith("jump host 127.0.0.1: its host key has changed")


def test_hosts_in_between(room: Path) -> None:
    config = room / "config"
    config.write_text(
        "Host far\n ProxyJump one,joe@two:2222\n"
        "Host one\n ProxyJump zero\nHost two\n HostName two.lab\n"
    )
    jumps = resolve(Way("far", ssh_config=config)).jumps
    assert [(hop.host, hop.port) for hop in jumps] == [("zero", 22), ("one", 22), ("two.lab", 2222)]
    assert jumps[2].user == "joe"
    config.write_text("Host a\n ProxyJump b\nHost b\n ProxyJump a\n")
    with pytest.raises(RunnerError, match="jump"):
        resolve(Way("a", ssh_config=config))


# -- files


def a_file(room: Path, size: int) -> tuple[Path, str]:
    path = room / f"source.{size}"
    path.write_bytes(random.Random(size).randbytes(size))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


async def there_and_back(runner: SshRunner, room: Path, size: int) -> None:
    source, digest = a_file(room, size)
    there, back = room / "there/a/file", room / "back"
    await runner.put(source, str(there), digest)
    assert there.read_bytes() == source.read_bytes()
    assert sorted(path.name for path in there.parent.iterdir()) == ["file"]
    await runner.get(str(there), back, size)
    assert back.read_bytes() == source.read_bytes()
    shutil.rmtree(room / "there")
    back.unlink()


@pytest.mark.parametrize("size", [0, 1, ssh_module.SMALL, ssh_module.SMALL + 1, LARGE])
async def test_files_of_every_size(runner: SshRunner, room: Path, size: int) -> None:
    await there_and_back(runner, room, size)


async def test_a_file_that_is_there_is_not_sent_again(
    runner: SshRunner, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, digest = a_file(room, LARGE)
    await runner.put(source, f"{room}/there", digest)
    source.write_bytes(bytes(LARGE))
    await runner.put(source, f"{room}/there", digest)
    assert hashlib.sha256((room / "there").read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("part", [1000, LARGE - 1000, LARGE])
async def test_a_file_that_was_sent_in_part_is_resumed(
    runner: SshRunner, room: Path, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, digest = a_file(room, LARGE)
    (room / "there.part").write_bytes(source.read_bytes()[:part])
    sent: list[int] = []
    send = Bulk.send

    async def noted(self: Bulk, argv: list[str], source: Path, offset: int) -> object:
        sent.append(offset)
        return await send(self, argv, source, offset)

    monkeypatch.setattr(Bulk, "send", noted)
    await runner.put(source, f"{room}/there", digest)
    assert (room / "there").read_bytes() == source.read_bytes()
    assert sent == ([part] if LARGE - part > ssh_module.SMALL else [])


@pytest.mark.parametrize("size", [1000, LARGE])
@pytest.mark.parametrize("wrong", ["damaged", "too long"])
async def test_what_was_sent_wrongly_is_sent_again(
    runner: SshRunner, room: Path, size: int, wrong: str
) -> None:
    source, digest = a_file(room, size)
    there = bytes(size // 2) if wrong == "damaged" else bytes(size + 1)
    (room / "there.part").write_bytes(there)
    await runner.put(source, f"{room}/there", digest)
    assert (room / "there").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("size", [1000, LARGE])
async def test_a_file_that_changed_here_never_gets_there(
    runner: SshRunner, room: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(ssh_module, "TRIES", 2)
    source, digest = a_file(room, size)
    source.write_bytes(bytes(size))
    with pytest.raises(RunnerError, match="damaged 2 times") as caught:
        await runner.put(source, f"{room}/there", digest)
    assert caught.value.kind is Kind.BROKEN
    assert not (room / "there").exists() and not (room / "there.part").exists()


async def test_where_nothing_can_be_written(runner: SshRunner, room: Path) -> None:
    (room / "file").write_text("")
    for size in (10, LARGE):
        source, digest = a_file(room, size)
        with pytest.raises(RunnerError) as caught:
            await runner.put(source, f"{room}/file/there", digest)
        assert caught.value.kind is Kind.REFUSED
        assert "directory" in caught.value.why or "exists" in caught.value.why
    with pytest.raises(RunnerError, match="on this side"):
        await runner.put(room / "nosuch", f"{room}/there", "0" * 64)


@pytest.mark.parametrize("size", [1000, LARGE])
async def test_what_cannot_be_fetched(runner: SshRunner, room: Path, size: int) -> None:
    source, _ = a_file(room, size)
    (room / "link").symlink_to(source)
    for name, wanted, kind in (
        ("nosuch", size, Kind.ABSENT),
        ("link", size, Kind.ABSENT),
        ("there", size, Kind.ABSENT),
        (source.name, size + 1, Kind.BROKEN),
        (source.name, size - 1, Kind.BROKEN),
    ):
        (room / "there").mkdir(exist_ok=True)
        with pytest.raises(RunnerError) as caught:
            await runner.get(f"{room}/{name}", room / "back", wanted)
        assert caught.value.kind is kind, name


async def test_what_was_fetched_in_part_is_resumed(
    runner: SshRunner, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = a_file(room, LARGE)
    back = room / "back"
    for part in (1000, LARGE - 1000, LARGE):
        back.write_bytes(source.read_bytes()[:part])
        await runner.get(str(source), back, LARGE)
        assert back.read_bytes() == source.read_bytes()
    back.write_bytes(bytes(LARGE + 1))
    await runner.get(str(source), back, LARGE)
    assert back.read_bytes() == source.read_bytes()


async def test_a_transfer_that_is_killed_goes_on_where_it_was(
    runner: SshRunner, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways, each a few times: the ssh that does it is killed when something has come."""
    monkeypatch.setattr(ssh_module, "FIRST_PAUSE", 0.01)
    source, digest = a_file(room, 60_000_000)
    rng = random.Random(1)

    async def killed(task: asyncio.Task[None], growing: Path) -> None:
        kills = 0
        while not task.done():
            await asyncio.sleep(rng.uniform(0.01, 0.05))
            for pid in children("ssh") if kills < 3 and has_begun(growing) else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    kills += 1
        await task

    await killed(
        asyncio.create_task(runner.put(source, f"{room}/there", digest)), room / "there.part"
    )
    assert (room / "there").read_bytes() == source.read_bytes()
    size = source.stat().st_size
    await killed(asyncio.create_task(runner.get(str(source), room / "back", size)), room / "back")
    assert (room / "back").read_bytes() == source.read_bytes()


def has_begun(growing: Path) -> bool:
    return growing.exists() and growing.stat().st_size > 0


def children(name: str) -> list[int]:
    """Our children that run a program."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            _, comm, rest = path.read_text().replace("(", ")").split(")", 2)
            if comm == name and int(rest.split()[1]) == os.getpid():
                found.append(int(path.parent.name))
    return found


async def test_no_more_at_once_than_set(
    ports: PortCluster, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = a_file(room, LARGE)
    bulk = Bulk(way(ports), 2)
    script = f"echo begun >>{room}/log; cat >/dev/null; sleep 0.3; echo ended >>{room}/log"
    await asyncio.gather(*[bulk.send(["sh", "-c", script], source, 0) for _ in range(5)])
    running = most = 0
    for line in (room / "log").read_text().split():
        running += 1 if line == "begun" else -1
        most = max(most, running)
    assert (most, running) == (2, 0)


async def test_a_transfer_in_which_nothing_moves(
    ports: PortCluster, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_module, "STALL_SECONDS", 1.0)
    with pytest.raises(RunnerError, match="nothing moved") as caught:
        await Bulk(way(ports), 1).receive(["sleep", "60"], room / "back", 10)
    assert caught.value.kind is Kind.UNREACHABLE
    assert children("ssh") == []


async def test_a_host_that_sends_without_end(ports: PortCluster, room: Path) -> None:
    with pytest.raises(RunnerError) as caught:
        await Bulk(way(ports), 1).receive(["cat", "/dev/zero"], room / "back", LARGE)
    assert caught.value.kind is Kind.BROKEN
    await until(lambda: children("ssh") == [])
