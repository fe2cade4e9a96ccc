"""Parts of a run: the scan, following, and what is checked before anything begins."""

import asyncio
import io
import os
import sys
from dataclasses import replace

import pytest
from build_fakes import until

from clusterbuild import follow
from clusterbuild import scan as scan_module
from clusterbuild.api.v1 import clusterbuild_pb2 as bpb
from clusterbuild.follow import Follower
from clusterbuild.kit import Kit
from clusterbuild.logs import LogTree
from clusterbuild.progress import Progress
from clusterbuild.run import Options, check
from clusterbuild.scan import Scan, scan
from clusterbuild.snapshots import Snapshot
from clusterdep.api.errors import Fault
from clusterdep.api.v1 import clusterdep_pb2 as pb


class FakeCalls:
    """Both daemons, as far as a run asks them."""

    def __init__(self):
        self.host = bpb.Host(name="h", state="ready", sandbox="mount", slots=1)
        self.states = []
        self.orders = []
        self.running = [2, 1, 0]
        self.idle = False
        self.done = 0
        self.events = asyncio.Queue()
        self.query = self
        self.leases = 1

    async def status(self):
        if self.states:
            self.host.state = self.states.pop(0)
        return bpb.StatusResponse(connected=True, hosts=[self.host])

    async def stop(self, now):
        self.orders.append("stop")
        return self.running.pop(0)

    async def resume(self):
        self.orders.append("resume")

    async def summary(self, profile):
        counts = [
            pb.StatusCount(status=pb.STATUS_BUILT, needed=self.done),
            pb.StatusCount(status=pb.STATUS_OPEN, needed=3 - self.done),
        ]
        return pb.SummaryResponse(
            profile=pb.Profile(name=profile, complete=True),
            idle=self.idle,
            leases=self.leases,
            counts=counts,
            last_event=5,
        )

    async def Watch(self, request):
        assert request.follow
        self.orders.append(f"watch {request.after}")
        while True:
            event = await self.events.get()
            if event is None:
                raise Away
            yield event


class Away(follow.grpc.RpcError):
    """clusterdep does not answer."""

    def code(self):
        return follow.grpc.StatusCode.UNAVAILABLE

    def details(self):
        return ""


Away = Away()


@pytest.fixture
def calls():
    return FakeCalls()


class TestScan:
    @pytest.fixture
    def what(self, tmp_path, monkeypatch):
        """A scan whose helper is a line of shell."""
        self.script = "exit 0"

        def words(name, *_):
            return ["sh", "-c", self.script]

        monkeypatch.setattr(scan_module, "program", words)
        monkeypatch.setattr(scan_module, "clean_prefix_command", lambda words, **_: words)
        kit = Kit(tmp_path / "kit.tgz", "/prefix", "")
        kit.path.write_bytes(b"kit")
        snapshot = Snapshot("0" * 64, tmp_path / "tree")
        return Scan("p", ("devel",), "unix:x", kit, tmp_path, tmp_path / "scan.log", snapshot)

    @pytest.fixture
    def pin(self, calls):
        async def pinned():
            calls.pinned_after = len(calls.orders)

        return pinned

    async def test_what_it_said_is_kept(self, calls, what, pin):
        self.script = "echo one bad directory >&2"
        await scan(calls, what, pin)
        assert what.log.read_text() == "one bad directory\n"
        assert calls.orders == []

    async def test_without_a_sandbox_nothing_is_built_meanwhile(
        self, calls, what, pin, monkeypatch
    ):
        async def at_once(seconds):
            pass

        monkeypatch.setattr(scan_module.asyncio, "sleep", at_once)
        calls.host.sandbox = "none"
        await scan(calls, what, pin)
        assert calls.orders == ["stop", "stop", "stop", "resume"]

    async def test_while_a_tree_that_moved_is_scanned_nothing_begins(self, calls, what, pin):
        await scan(calls, replace(what, moved=True), pin)
        assert calls.orders == ["stop", "resume"]
        assert calls.pinned_after == 1

    async def test_a_scan_that_is_no_host_s(self, calls, what, pin):
        calls.host.state, calls.host.reason = "refused", "it is another machine"
        await scan(calls, replace(what, alone=False), pin)
        assert calls.orders == []

    async def test_it_says_what_it_scans(self, calls, what, pin, monkeypatch):
        said = []
        monkeypatch.setattr(scan_module, "program", lambda *words: said.append(words) or ["true"])
        await scan(calls, what, pin)
        what.kit.path.write_bytes(b"another kit")
        await scan(calls, what, pin)
        trees, revisions = (
            {words[words.index(o) + 1] for words in said} for o in ("--tree", "--revision")
        )
        assert trees == {str(what.snapshot.path)}
        assert len(revisions) == 2
        assert all(one.startswith(f"snapshot:{what.snapshot.digest}+") for one in revisions)

    async def test_it_waits_for_the_host_to_be_probed(self, calls, what, pin):
        calls.states = ["unknown", "probing", "ready"]
        await scan(calls, what, pin)
        assert calls.states == []

    async def test_a_host_that_cannot_build(self, calls, what, pin):
        calls.host.state, calls.host.reason = "refused", "it has no sh"
        with pytest.raises(Fault, match="h cannot build: it has no sh"):
            await scan(calls, what, pin)

    async def test_a_daemon_that_was_away_is_tried_again(self, calls, what, pin):
        self.script = (
            f"echo x >>{what.base}/tries; [ $(wc -l <{what.base}/tries) -ge 3 ] || exit 69"
        )
        await scan(calls, what, pin)
        assert (what.base / "tries").read_text() == "x\nx\nx\n"

    @pytest.mark.parametrize(
        ("script", "code"),
        [
            ("echo the tree is no tree >&2; exit 66", os.EX_DATAERR),
            ("echo no room >&2; exit 125", os.EX_UNAVAILABLE),
            ("echo not there >&2; exit 69", os.EX_UNAVAILABLE),
            ("kill -9 $$", os.EX_DATAERR),
        ],
    )
    async def test_failures(self, calls, what, pin, script, code):
        self.script = script
        with pytest.raises(Fault, match="the tree could not be scanned") as caught:
            await scan(calls, what, pin)
        assert caught.value.exit_code == code
        said = script.removeprefix("echo ").partition(" >&2")[0]
        assert said in str(caught.value) or "kill" in script

    async def test_it_is_ended_with_the_run(self, calls, what, pin):
        self.script = f"echo $$ >{what.base}/pid; exec sleep 60"
        task = asyncio.create_task(scan(calls, what, pin))
        await until(lambda: (what.base / "pid").exists() and (what.base / "pid").read_text())
        pid = int((what.base / "pid").read_text())
        task.cancel()
        await asyncio.wait({task})
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


class TestFollower:
    @pytest.fixture
    def out(self):
        return io.StringIO()

    @pytest.fixture
    def follower(self, calls, out, monkeypatch):
        monkeypatch.setattr(follow, "STEP", 0.02)
        monkeypatch.setattr(follow, "QUIET", 0.05)
        return Follower(calls, "p", Progress(out))

    async def test_it_shows_every_job_and_ends_when_idle(self, calls, follower, out):
        async with follower:
            task = asyncio.create_task(follower.until_idle())
            await until(lambda: "watch 5" in calls.orders)
            calls.done = 2
            for name in ("a-1", "b-1"):
                calls.events.put_nowait(pb.Event(sequence=6, kind="built", subject=name))
            await until(lambda: "b-1" in out.getvalue())
            calls.events.put_nowait(pb.Event(sequence=8, kind="built", subject="c-1"))
            calls.done, calls.idle, calls.leases = 3, True, 0
            assert await task == ""
        assert follower.built == ["a-1", "b-1", "c-1"]
        assert [line[:5] for line in out.getvalue().splitlines()] == ["[1/3]", "[2/3]", "[3/3]"]

    async def test_it_goes_on_where_it_was_after_a_break(self, calls, follower, out):
        async with follower:
            calls.events.put_nowait(pb.Event(sequence=9, kind="built", subject="a-1"))
            calls.events.put_nowait(None)
            await until(lambda: calls.orders == ["watch 5", "watch 9"])

    async def test_it_gives_up_when_nothing_can_go_on(self, calls, follower, monkeypatch):
        monkeypatch.setattr(follow, "STALL_SECONDS", 0.1)
        calls.host.state, calls.host.reason, calls.leases = "quarantined", "disk full", 0
        async with follower:
            assert await follower.until_idle() == "host h is quarantined: disk full"

    async def test_hosts_that_could_build_are_waited_for(self, calls, follower, monkeypatch, out):
        monkeypatch.setattr(follow, "STALL_SECONDS", 0.1)
        monkeypatch.setattr(follow, "LOST_SECONDS", 0.5)
        async with follower:
            task = asyncio.create_task(follower.until_idle())
            await asyncio.sleep(0.1)
            calls.leases = 0
            for _ in range(4):
                calls.host.state, calls.host.reason = "lost", "it does not answer"
                await asyncio.sleep(0.08)
                assert not task.done()
                calls.host.state, calls.host.reason = "probing", ""
                await asyncio.sleep(0.03)
            calls.host.state, calls.host.reason = "lost", "it does not answer"
            assert await task == "host h is lost: it does not answer"
        assert out.getvalue() == "host h is lost: it does not answer\n"

    async def test_it_does_not_give_up_if_something_goes_on(self, calls, follower, monkeypatch):
        monkeypatch.setattr(follow, "STALL_SECONDS", 0.1)
        calls.host.reason, calls.leases = "disk full", 0
        async with follower:
            task = asyncio.create_task(follower.until_idle())
            await asyncio.sleep(0.07)
            calls.host.reason = ""
            await asyncio.sleep(0.15)
            assert not task.done()
            calls.idle = True
            assert await task == ""


class TestChecks:
    def options(self, tmp_path, **fields):
        tree = tmp_path / "tree"
        (tree / "bootstrap").mkdir(parents=True, exist_ok=True)
        (tree / "bootstrap/bootstrap").write_text("")
        (tree / "Makefile").write_text("")
        return Options(**{"tree": tree, "profile": "p", "state": tmp_path / "state", **fields})

    def test_what_is_made(self, tmp_path):
        check(self.options(tmp_path))
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "state/prefix").is_dir()

    @pytest.mark.parametrize(
        ("fields", "part", "code"),
        [
            ({"tree": "gone"}, "there is no tree", os.EX_NOINPUT),
            ({"state": "a b"}, "makefiles cannot handle the name", os.EX_CONFIG),
            ({"state": "tree/Makefile/x"}, "cannot be made: Not a directory", os.EX_CANTCREAT),
        ],
    )
    def test_what_cannot_be(self, tmp_path, fields, part, code):
        with pytest.raises(Fault, match=part) as caught:
            check(self.options(tmp_path, **{k: tmp_path / v for k, v in fields.items()}))
        assert caught.value.exit_code == code


class TestLogTree:
    def test_only_the_newest_attempts_are_kept(self, tmp_path):
        tree = LogTree(tmp_path)
        for number in range(5):
            directory = tree.directory("p", "foo-1.0", f"a{number}")
            tree.append(directory, "build", 0, b"x")
            os.utime(directory, (number, number))
        package = tmp_path / "p/foo-1.0"
        tree.prune(package, 0)
        assert len(list(package.iterdir())) == 5
        tree.prune(package, 2)
        assert sorted(path.name for path in package.iterdir()) == ["a3", "a4"]
        tree.prune(tmp_path / "p/none-1.0", 2)
        assert tree.find("foo-1.0").name == "a4"
        assert tree.find("a3").name == "a3"

    def test_names_are_no_patterns(self, tmp_path):
        tree = LogTree(tmp_path)
        tree.append(tree.directory("p", "foo-1.0", "a1"), "build", 0, b"x")
        for what in ("*", "foo-*", "a?", "..", ".", "", "a/b", "foo-[0-9].0"):
            assert tree.find(what) is None

    def test_pieces_are_written_at_their_place(self, tmp_path):
        tree = LogTree(tmp_path)
        directory = tree.directory("p", "foo-1.0", "a1")
        tree.append(directory, "build", 0, b"abc")
        tree.append(directory, "build", 3, b"def")
        tree.append(directory, "build", 3, b"def")
        assert tree.read(directory, "build", 2, 3) == b"cde"
        assert tree.read(directory, "install", 0, 3) == b""
        assert tree.stages(directory) == ["build"]


def test_programs_are_run_by_this_python():
    assert scan_module.program("clusterdep", "x")[:2] == [sys.executable, "-P"]
