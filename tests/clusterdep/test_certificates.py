"""The CA, certificates that are renewed or wrong under a running daemon, and the command line."""

from __future__ import annotations

import json
import os
import signal
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from tls_daemon import DAY, HOSTS, NOW, Pki, Served, bearer, start, stop

from clusterdep.api import certificates, secure
from clusterdep.api.addresses import Access
from clusterdep.api.client import Link, connect, fault_of
from clusterdep.api.errors import Fault, Kind
from clusterdep.api.ports import Ports
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.api.v1 import clusterdep_pb2_grpc as rpc
from clusterdep.authority import Authority, Wanted, wanted_again


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


@pytest.fixture
def served(tmp_path: Path, pki: Pki) -> Iterator[Served]:
    served = start(tmp_path, pki, pki.issue("server", hosts=HOSTS))
    yield served
    stop(served)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# -- the CA ------------------------------------------------------------------------------


def test_a_ca_is_made_once(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    authority.init("ours", 100, NOW)
    assert [mode(authority.directory), mode(authority.key)] == [0o700, 0o600]
    before = authority.key.read_bytes()
    with pytest.raises(Fault, match=r"ca\.key exists, and is not replaced") as fault:
        authority.init("ours", 100, NOW)
    assert fault.value.exit_code == os.EX_CANTCREAT
    assert authority.key.read_bytes() == before
    made = certificates.read_chain(authority.certificate, "it")[0]
    assert made.not_valid_after_utc == NOW + 100 * DAY
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_certificate_is_for_what_was_asked(pki: Pki) -> None:
    path, key = pki.issue("both", "builder", ("build.example.org", "10.0.0.7", "2001:db8::7"))
    assert mode(key) == 0o600
    assert wanted_again(path, 9) == Wanted(
        "both", "builder", ("build.example.org", "10.0.0.7", "2001:db8::7"), 9
    )
    found = certificates.read_certificate(path.read_bytes())
    assert (found.name, found.role) == ("both", "builder")
    with pytest.raises(Fault, match=r"both\.crt exists, and is not replaced"):
        pki.issue("both", "admin")
    assert certificates.read_certificate(path.read_bytes()) == found
    pki.authority.issue(wanted_again(path, 2), path.parent, NOW, renew=True)
    again = certificates.read_certificate(path.read_bytes())
    assert again.role == "builder" and again.fingerprint != found.fingerprint


def test_no_certificate_outlives_its_ca(pki: Pki) -> None:
    path, _ = pki.issue("long", "viewer", days=4000)
    ca = certificates.read_chain(pki.ca, "it")[0]
    assert certificates.read_chain(path, "it")[0].not_valid_after_utc == ca.not_valid_after_utc
    with pytest.raises(Fault, match=r"ca\.crt expired on"):
        pki.issue("late", "viewer", since=100)


def test_two_roles_are_none() -> None:
    from clusterdep.api.access import role_of

    assert role_of(["clusterdep://role/viewer", "clusterdep://role/admin"]) == ""
    assert role_of(["https://example.org/", "clusterdep://role/viewer"]) == "viewer"
    assert role_of(["xclusterdep://role/viewer"]) == ""


def test_a_list_of_revoked_certificates(tmp_path: Path, pki: Pki) -> None:
    path, _ = pki.issue("one", "viewer")
    revoked = certificates.Revoked(pki.authority.revoked)
    assert revoked() == frozenset()
    fingerprint = pki.authority.revoke(path, NOW)
    assert pki.authority.revoke(path, NOW) == fingerprint
    assert revoked() == {fingerprint}
    assert pki.authority.revoked.read_text().count("one") == 1
    pki.authority.revoked.write_text("what is this\n")
    assert revoked() == {fingerprint}, "what was read before holds"
    with pytest.raises(Fault, match="revoked:1: not a SHA-256 fingerprint"):
        certificates.Revoked(pki.authority.revoked)
    with pytest.raises(Fault, match=r"tls_revoked .*absent cannot be read"):
        certificates.Revoked(tmp_path / "absent")


# -- what a daemon does not take ---------------------------------------------------------


def shown(certificate: Path, key: Path) -> certificates.Shown:
    return certificates.Shown(Ports(("tls:h:1",), certificate, key))


def test_a_daemon_does_not_start_with_what_it_cannot_show(tmp_path: Path, pki: Pki) -> None:
    good, other = pki.issue("good", hosts=HOSTS), pki.issue("other", hosts=HOSTS)
    shown(*good)
    with pytest.raises(Fault, match=r"other\.key does not belong to the certificate .*good\.crt"):
        shown(good[0], other[1])
    with pytest.raises(Fault, match="expired on"):
        shown(*pki.issue("old", hosts=HOSTS, since=-9, days=2))
    with pytest.raises(Fault, match="is valid only from"):
        shown(*pki.issue("early", hosts=HOSTS, since=2))
    with pytest.raises(Fault, match="holds no certificate"):
        shown(good[1], good[1])
    with pytest.raises(Fault, match="holds no private key"):
        good[0].chmod(0o600)
        shown(good[0], good[0])
    with pytest.raises(Fault, match="absent cannot be read: No such file"):
        shown(tmp_path / "absent", good[1])
    good[1].chmod(0o604)
    with pytest.raises(Fault, match=r"good\.key is secret, and open to everybody") as fault:
        shown(*good)
    assert fault.value.exit_code == os.EX_CONFIG


def diagnosis(port: str, ca: Path) -> str:
    found = secure.diagnose(port, True, Access(ca=ca))
    assert found is not None and found.kind is Kind.UNAUTHENTICATED
    return found.what


def test_clients_do_not_take_every_daemon(tmp_path: Path, pki: Pki, served: Served) -> None:
    chain, key = tmp_path / "server.crt", tmp_path / "server.key"

    def serve_with(pair: tuple[Path, Path]) -> str:
        # The daemon refuses to read such ones, so it is given them while it does not look.
        key.write_bytes(pair[1].read_bytes())
        chain.write_bytes(pair[0].read_bytes())
        return diagnosis(served.tls, pki.ca)

    assert "localhost" in served.tls
    said = serve_with(pki.issue("elsewhere", hosts=("elsewhere.example.org", "127.0.0.9")))
    assert said == f"the certificate of the daemon at {served.tls} is not for localhost"
    stranger = Pki(tmp_path / "stranger").issue("server", hosts=HOSTS)
    assert "was not signed by the CA in" in serve_with(stranger)


@pytest.mark.parametrize(
    ("since", "said"), [(-9, "has expired"), (2, "is not valid yet")], ids=["expired", "early"]
)
def test_a_daemon_whose_certificate_does_not_count(pki: Pki, since: int, said: str) -> None:
    chain, key = pki.issue("server", hosts=HOSTS, since=since, days=3)
    server = grpc.server(ThreadPoolExecutor(1))
    shown = grpc.ssl_server_credentials([(key.read_bytes(), chain.read_bytes())])
    target = f"localhost:{server.add_secure_port('127.0.0.1:0', shown)}"
    server.start()
    with grpc.secure_channel(target, pki.show()) as channel, pytest.raises(grpc.RpcError) as caught:
        rpc.QueryStub(channel).ListProfiles(pb.ListProfilesRequest(), timeout=10)
    fault = fault_of(caught.value, target, "clusterdep", Access(ca=pki.ca))
    assert fault.what == f"the certificate of the daemon at {target} {said}"
    server.stop(None)


# -- renewed under a running daemon ------------------------------------------------------


def serial(served: Served) -> int:
    """Of the certificate that a new client is shown."""
    import ssl

    host, port = served.tls.split(":")
    return x509.load_pem_x509_certificate(
        ssl.get_server_certificate((host, int(port)), timeout=10).encode()
    ).serial_number


def test_a_renewed_certificate_is_shown_and_no_stream_ends(
    tmp_path: Path, pki: Pki, served: Served
) -> None:
    secret = served.token("watcher", "viewer")
    with grpc.secure_channel(served.tls, pki.show()) as channel:
        watch = rpc.QueryStub(channel).Watch(
            pb.WatchRequest(follow=True), metadata=bearer(secret), timeout=60
        )
        assert next(watch).subject == "watcher"
        before = serial(served)
        ca = str(tmp_path / "ca")
        done = served.cli("cert", "issue", "server", "--renew", "--dir", ca, "--out", str(tmp_path))
        assert done.returncode == 0, done.stderr
        renewed = certificates.read_chain(tmp_path / "server.crt", "it")[0]
        assert serial(served) == renewed.serial_number != before
        served.token("other", "viewer")
        assert next(watch).subject == "other", "the stream of the old connection goes on"
        # Half-written files are not shown, and are said.
        (tmp_path / "server.key").write_bytes(pki.issue("x", hosts=HOSTS)[1].read_bytes())
        assert serial(served) == renewed.serial_number
        assert "does not belong to the certificate" in served.log
        served.process.send_signal(signal.SIGHUP)
        give_up = time.monotonic() + 20
        while "was not read again" not in served.log:
            assert time.monotonic() < give_up
            time.sleep(0.02)
        served.token("third", "viewer")
        assert next(watch).subject == "third"


async def test_a_link_follows_renewed_files(tmp_path: Path, pki: Pki, served: Served) -> None:
    pair = pki.issue("dispatcher", "builder")
    link = Link(served.mtls, Access(pki.ca, *pair))
    request = pb.ListLeasesRequest()
    await rpc.WorkStub(link.channel).ListLeases(request, timeout=10)
    assert not link.renewed()
    pki.authority.revoke(pair[0], NOW)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rpc.WorkStub(link.channel).ListLeases(request, timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    pki.authority.issue(wanted_again(pair[0], 3), tmp_path, NOW, renew=True)
    assert link.renewed() and not link.renewed()
    await rpc.WorkStub(link.channel).ListLeases(request, timeout=10)
    pair[1].write_text("nonsense")
    with pytest.raises(Fault, match="does not belong"):
        link.renewed()
    await rpc.WorkStub(link.channel).ListLeases(request, timeout=10)
    await link.close()


async def test_a_token_file_is_read_again(tmp_path: Path, pki: Pki, served: Served) -> None:
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text(served.token("first", "viewer"))
    access = Access(ca=pki.ca, token_file=file)
    async with connect(served.tls, access) as channel:
        query = rpc.QueryStub(channel)
        await query.ListProfiles(pb.ListProfilesRequest(), timeout=10)
        served.revoke("first")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await query.ListProfiles(pb.ListProfilesRequest(), timeout=10)
        fault = fault_of(caught.value, served.tls, "clusterdep", access)
        assert fault.kind is Kind.UNAUTHENTICATED
        file.write_text(served.token("second", "viewer"))
        await query.ListProfiles(pb.ListProfilesRequest(), timeout=10)
        file.chmod(0o644)
        with pytest.raises(Fault, match="is secret, and open to everybody"):
            connect(served.tls, access)
        file.chmod(0o600)
        file.write_text("two words\n")
        with pytest.raises(Fault, match="holds no token"):
            connect(served.tls, access)


# -- the command line --------------------------------------------------------------------


def test_from_nothing_to_a_status_over_tls(tmp_path: Path) -> None:
    here = Served(tmp_path, None, "", "", "", "", None)  # type: ignore[arg-type]
    ca, own = str(tmp_path / "state/ca"), tmp_path / "own"
    own.mkdir()

    def ok(*words: str, **environment: str) -> str:
        done = here.cli(*words, **environment)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    assert ok("cert", "init", "--state", str(tmp_path / "state")) == f"{ca}/ca.crt\n"
    again = here.cli("cert", "init", "--dir", ca)
    assert again.returncode == 73 and "exists, and is not replaced" in again.stderr
    issue = ("cert", "issue", "--dir", ca, "--out", str(own))
    hosts = [word for host in HOSTS for word in ("--host", host)]
    assert ok(*issue, "server", *hosts) == f"{own}/server.crt\n"
    ok(*issue, "laptop", "--role", "admin", "--days", "30")
    assert here.cli(*issue, "none").returncode == 64
    assert here.cli(*issue, "a/b", "--role", "admin").returncode == 2
    assert here.cli(*issue, "c", "--role", "root").returncode == 2
    assert here.cli(*issue, "c", "--host", "a b").returncode == 2
    assert here.cli("cert", "issue", "c", "--role", "admin", "--dir", str(own)).returncode == 66

    pki = Pki.__new__(Pki)
    pki.directory, pki.authority = own, Authority(Path(ca))
    pki.ca = pki.authority.certificate
    served = start(tmp_path / "state", pki, (own / "server.crt", own / "server.key"))
    laptop = {
        "CLUSTERDEP_ADDRESS": served.mtls,
        "CLUSTERDEP_CA": f"{ca}/ca.crt",
        "CLUSTERDEP_CERT": str(own / "laptop.crt"),
        "CLUSTERDEP_KEY": str(own / "laptop.key"),
    }
    assert ok("token", "add", "ci", "--role", "viewer", "--out", f"{own}/token", **laptop) == ""
    assert mode(own / "token") == 0o600
    assert here.cli("token", "add", "ci", "--role", "viewer", **laptop).returncode == 73
    shown = ok("token", "add", "page", "--role", "viewer", "--days", "2", "--json", **laptop)
    assert json.loads(shown)["secret"].startswith("cdt_")
    ok("profile", "set", "p", "--tree", "/usr/pkgsrc", **laptop)
    reader = {
        "CLUSTERDEP_ADDRESS": served.tls,
        "CLUSTERDEP_CA": f"{ca}/ca.crt",
        "CLUSTERDEP_TOKEN_FILE": str(own / "token"),
    }
    assert "p" in ok("profile", "list", **reader)
    denied = here.cli("token", "list", **reader)
    assert denied.returncode == 77 and "needs the role admin" in denied.stderr
    listed = ok("token", "list", **laptop).splitlines()
    assert [line.split()[:2] for line in listed] == [["ci", "viewer"], ["page", "viewer"]]
    assert listed[0].endswith("counts") and "counts until" in listed[1]
    ok("token", "revoke", "ci", **laptop)
    assert "revoked" in ok("token", "list", **laptop).splitlines()[0]
    gone = here.cli("profile", "list", **reader)
    assert gone.returncode == 77 and "unknown, or was revoked" in gone.stderr
    assert here.cli("token", "revoke", "nobody", **laptop).returncode == 65
    stop(served)


def test_a_token_that_cannot_be_made_leaves_no_file(tmp_path: Path, served: Served) -> None:
    out = tmp_path / "token"
    state = ("--state", str(served.state))
    done = served.cli("token", "add", "a b", "--role", "viewer", "--out", str(out), *state)
    assert done.returncode == 65 and "name 'a b' is not" in done.stderr
    assert not out.exists()
    out.write_text("mine")
    done = served.cli("token", "add", "ok", "--role", "viewer", "--out", str(out), *state)
    assert done.returncode == 73 and out.read_text() == "mine"
    assert served.cli("token", "list", *state).stdout == ""


def test_a_daemon_says_what_it_cannot_serve_with(tmp_path: Path, pki: Pki) -> None:
    pair = pki.issue("server", hosts=HOSTS)
    pair[1].write_text("nonsense")
    config = tmp_path / "c.toml"
    config.write_text(
        f'state = "{tmp_path}/state"\nlisten = "tls:127.0.0.1:9"\n'
        'tls_certificate = "server.crt"\ntls_key = "server.key"\n'
    )
    here = Served(tmp_path, pki, "", "", "", "", None)  # type: ignore[arg-type]
    done = here.cli("serve", "--config", str(config))
    assert done.returncode == 78, done
    assert f"tls_key {tmp_path}/server.key holds no private key" in done.stderr
    assert "Traceback" not in done.stderr
