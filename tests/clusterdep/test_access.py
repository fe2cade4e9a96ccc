"""Who may what, over real TLS: every rpc with every role, and everything that must fail."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from dep_daemon import Daemon
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from tls_daemon import HOSTS, Pki, Served, bearer, call, free_port, start, stop

from clusterbuild.api.v1 import clusterbuild_pb2
from clusterdep.api import client, roles
from clusterdep.api.access import CALLS_OF_ONE, Gate, Tokens
from clusterdep.api.errors import Fault
from clusterdep.api.roles import NEEDED, ROLES
from clusterdep.api.serving import CONNECTIONS
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.api.v1 import clusterdep_pb2_grpc as rpc

OK = grpc.StatusCode.OK
DENIED, UNKNOWN = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED
OURS = sorted(m for m in NEEDED if not m.startswith("/clusterbuild"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("served")
    pki = Pki(directory)
    served = start(directory, pki, pki.issue("server", hosts=HOSTS))
    yield served
    stop(served)


@pytest.fixture(scope="module")
def tokens(served: Served) -> dict[str, str]:
    return {role: served.token(f"a-{role}", role) for role in ROLES}


@pytest.fixture(scope="module")
def channel(served: Served) -> Iterator[grpc.Channel]:
    """Over TLS, with no token of its own."""
    with grpc.secure_channel(served.tls, served.pki.show()) as channel:
        yield channel


@pytest.fixture(scope="module")
def with_certificates(served: Served) -> Iterator[dict[str, grpc.Channel]]:
    """Over mutual TLS, one for each role."""
    channels = {
        role: grpc.secure_channel(served.mtls, served.pki.show(served.pki.issue(role, role)))
        for role in ROLES
    }
    yield channels
    for channel in channels.values():
        channel.close()


def methods_of(*files: Any) -> set[str]:
    return {
        f"/{service.full_name}/{method.name}"
        for file in files
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


# -- every rpc ---------------------------------------------------------------------------


def test_the_table_has_every_rpc_and_no_other() -> None:
    assert methods_of(pb, clusterbuild_pb2, health_pb2, reflection_pb2) == set(NEEDED)
    assert set(NEEDED.values()) == set(ROLES)


@pytest.mark.parametrize("method", OURS)
def test_each_role_may_what_the_table_says(
    channel: grpc.Channel,
    tokens: dict[str, str],
    with_certificates: dict[str, grpc.Channel],
    method: str,
) -> None:
    for role in ROLES:
        answers = [call(channel, method, tokens[role]), call(with_certificates[role], method)]
        for code, details in answers:
            if ROLES.index(role) < ROLES.index(NEEDED[method]):
                assert code is DENIED
                assert f"needs the role {NEEDED[method]}" in details and f"has {role}" in details
            else:
                assert code not in (DENIED, UNKNOWN), details


@pytest.mark.parametrize("method", OURS)
def test_nothing_without_a_token(channel: grpc.Channel, method: str) -> None:
    code, details = call(channel, method)
    assert code is UNKNOWN and "no token came with the call" in details


class Context:
    """Of a call over a connection without TLS."""

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"transport_security_type": [b"insecure"]}

    def invocation_metadata(self) -> tuple[()]:
        return ()


def test_what_is_not_in_the_table_is_denied() -> None:
    gate = Gate(Tokens(), plaintext_role="admin")
    assert gate.admit("/clusterdep.v1.Admin/Select", Context()).role == "admin"
    with pytest.raises(Fault, match="Added may be called by nobody") as fault:
        gate.admit("/clusterdep.v1.Admin/Added", Context())
    assert fault.value.code is DENIED
    with pytest.raises(Fault, match="needs the role viewer"):
        Gate(Tokens()).admit("/clusterdep.v1.Query/Watch", Context())
    assert not roles.includes("admin", "")
    assert not roles.includes("", "viewer")
    assert not roles.includes("root", "viewer")


def test_methods_that_are_not_there(channel: grpc.Channel, tokens: dict[str, str]) -> None:
    for method in ("/clusterdep.v1.Admin/Nothing", "/clusterbuild.v1.Control/Stop"):
        assert call(channel, method, tokens["admin"])[0] is grpc.StatusCode.UNIMPLEMENTED


# -- tokens that do not count ------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("Bearer ", "unknown, or was revoked"),
        ("Bearer nonsense", "unknown, or was revoked"),
        ("Bearer cdt_" + "A" * 43, "unknown, or was revoked"),
        ("Bearer cdt_" + "A" * 5000, "unknown, or was revoked"),
        ("Basic dXNlcjpwYXNz", "must be once, and 'Bearer TOKEN'"),
        ("", "must be once, and 'Bearer TOKEN'"),
    ],
)
def test_garbage_for_a_token(channel: grpc.Channel, header: str, said: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        rpc.QueryStub(channel).ListProfiles(
            pb.ListProfilesRequest(), timeout=10, metadata=[("authorization", header)]
        )
    assert caught.value.code() is UNKNOWN and said in caught.value.details()


def test_two_tokens_at_once(channel: grpc.Channel, tokens: dict[str, str]) -> None:
    with pytest.raises(grpc.RpcError, match="must be once"):
        rpc.QueryStub(channel).ListProfiles(
            pb.ListProfilesRequest(),
            timeout=10,
            metadata=[*bearer(tokens["viewer"]), *bearer(tokens["admin"])],
        )


def test_a_token_in_plaintext_is_refused(served: Served, tokens: dict[str, str]) -> None:
    with grpc.insecure_channel(served.plaintext) as plain:
        assert call(plain, "/clusterdep.v1.Query/ListProfiles")[0] is grpc.StatusCode.OK
        code, details = call(plain, "/clusterdep.v1.Query/ListProfiles", tokens["admin"])
        assert code is UNKNOWN and "not encrypted" in details
        code, details = call(plain, "/clusterdep.v1.Admin/ListTokens")
        assert code is DENIED and "whoever comes without TLS has viewer" in details


def test_a_token_beside_a_certificate_decides(
    with_certificates: dict[str, grpc.Channel], tokens: dict[str, str]
) -> None:
    method = "/clusterdep.v1.Admin/ListTokens"
    assert call(with_certificates["viewer"], method, tokens["admin"])[0] is grpc.StatusCode.OK
    assert call(with_certificates["admin"], method, tokens["viewer"])[0] is DENIED
    assert call(with_certificates["admin"], method, "nonsense")[0] is UNKNOWN


def test_a_token_ends_by_itself(served: Served, channel: grpc.Channel) -> None:
    secret = served.token("short", "viewer", lasts=1.5)
    stream = rpc.QueryStub(channel).Watch(
        pb.WatchRequest(follow=True), metadata=bearer(secret), timeout=20
    )
    with pytest.raises(grpc.RpcError) as caught:
        for _ in stream:
            pass
    assert caught.value.code() is UNKNOWN
    assert "token short counts no more" in caught.value.details()
    code, details = call(channel, "/clusterdep.v1.Query/ListProfiles", secret)
    assert code is UNKNOWN and "the token short has expired" in details
    assert served.token("short", "viewer"), "the name is free again"


# -- revoked while connected -------------------------------------------------------------


def ended(answers: Any) -> tuple[grpc.StatusCode, str]:
    try:
        for _ in answers:
            pass
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError("it ended as if all were well")


def test_a_token_is_revoked_while_connected(served: Served, channel: grpc.Channel) -> None:
    secret = served.token("gone", "builder")
    shown = {"metadata": bearer(secret), "timeout": 20}
    watch = rpc.QueryStub(channel).Watch(pb.WatchRequest(follow=True), **shown)
    next(watch)
    known = rpc.WorkStub(channel).WatchTokens(pb.WatchTokensRequest(), **shown)
    assert "gone" in {token.name for token in next(known).tokens}
    exchange = rpc.WorkStub(channel).Exchange.future(
        pb.ExchangeRequest(dispatcher="d", wait_seconds=15), **shown
    )
    feeding = threading.Event()

    def pieces() -> Iterator[pb.PutRecordsRequest]:
        header = pb.PutHeader(profile="p", mode=pb.PutHeader.MODE_MERGE, create=True)
        yield pb.PutRecordsRequest(header=header)
        feeding.wait(15)

    feed = rpc.FeedStub(channel).PutRecords.future(pieces(), **shown)
    time.sleep(0.3)
    assert not exchange.done() and not feed.done()
    begun = time.monotonic()
    assert served.revoke("gone") is True
    for code, details in (
        ended(watch),
        ended(known),
        (exchange.exception().code(), exchange.exception().details()),
        (feed.exception().code(), feed.exception().details()),
    ):
        assert code is UNKNOWN and "token gone counts no more" in details
    assert time.monotonic() - begun < 10, "all of them had longer to go"
    feeding.set()
    assert call(channel, "/clusterdep.v1.Query/ListProfiles", secret)[0] is UNKNOWN
    assert served.revoke("gone") is False


def test_a_token_is_revoked_while_events_are_written(served: Served) -> None:
    reader = served.token("hears", "viewer")
    for number in range(30):
        secret = served.token(f"deaf{number}", "viewer")
        with grpc.secure_channel(served.tls, served.pki.show()) as channel:
            stub = rpc.QueryStub(channel)
            deaf = stub.Watch(pb.WatchRequest(follow=True), metadata=bearer(secret), timeout=20)
            if number % 2:
                next(deaf)
            served.revoke(f"deaf{number}")
            assert list(stub.Watch(pb.WatchRequest(), metadata=bearer(reader), timeout=20))
            assert ended(deaf)[0] is UNKNOWN
    assert "TOO_MANY_OPERATIONS" not in served.log


def test_a_certificate_is_revoked_while_connected(served: Served) -> None:
    pair = served.pki.issue("leaver", "viewer")
    with grpc.secure_channel(served.mtls, served.pki.show(pair)) as channel:
        stub = rpc.QueryStub(channel)
        watch = stub.Watch(pb.WatchRequest(follow=True), timeout=20)
        next(watch)
        done = served.cli("cert", "revoke", str(pair[0]), "--dir", str(served.directory / "ca"))
        assert done.returncode == 0, done.stderr
        code, details = ended(watch)
        assert code is UNKNOWN and "certificate leaver counts no more" in details
        with pytest.raises(grpc.RpcError, match="the certificate leaver was revoked"):
            stub.ListProfiles(pb.ListProfilesRequest(), timeout=10)


# -- orders ------------------------------------------------------------------------------


def test_an_order_says_who_gave_it(
    served: Served, channel: grpc.Channel, tokens: dict[str, str]
) -> None:
    request = pb.PutProfileRequest(profile=pb.Profile(name="ordered", tree="/usr/pkgsrc"))
    rpc.AdminStub(channel).PutProfile(request, metadata=bearer(tokens["admin"]), timeout=10)
    events = rpc.QueryStub(channel).Watch(
        pb.WatchRequest(profile="ordered"), metadata=bearer(tokens["viewer"]), timeout=10
    )
    assert {json.loads(event.detail)["by"] for event in events} == {"token a-admin"}


async def test_no_token_is_told_in_plaintext(tmp_path: Path) -> None:
    place = f"plaintext:127.0.0.1:{free_port()}"
    dep = Daemon(tmp_path / "state")
    await dep.start(listen=(place,), insecure_plaintext="admin")
    async with client.connect(place) as plain:
        with pytest.raises(grpc.aio.AioRpcError, match="not encrypted") as caught:
            await rpc.AdminStub(plain).AddToken(pb.AddTokenRequest(name="a", role="viewer"))
        assert caught.value.code() is DENIED
        assert not (await rpc.AdminStub(plain).ListTokens(pb.ListTokensRequest())).tokens
    await dep.stop()


# -- limits ------------------------------------------------------------------------------


def test_a_message_over_the_limit(
    served: Served, channel: grpc.Channel, tokens: dict[str, str]
) -> None:
    large = pb.PutProfileRequest(profile=pb.Profile(name="x" * (client.MESSAGE_LIMIT + 1)))
    for secret in (tokens["admin"], "nonsense"):
        code, details = call(
            channel, "/clusterdep.v1.Admin/PutProfile", secret, large.SerializeToString()
        )
        assert code in (grpc.StatusCode.RESOURCE_EXHAUSTED, UNKNOWN)
        if secret == tokens["admin"]:
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert f"larger than max ({large.ByteSize()} vs. {client.MESSAGE_LIMIT})" in details
    assert served.process.poll() is None


def test_a_malformed_message(channel: grpc.Channel, tokens: dict[str, str]) -> None:
    for method in ("/clusterdep.v1.Query/Why", "/clusterdep.v1.Feed/PutRecords"):
        code, details = call(channel, method, tokens["admin"], b"\xff" * 20)
        assert code is grpc.StatusCode.INVALID_ARGUMENT and "can not be read" in details


def test_nobody_takes_all_calls(
    served: Served, channel: grpc.Channel, tokens: dict[str, str]
) -> None:
    greedy = served.token("greedy", "viewer")
    channels = [grpc.secure_channel(served.tls, served.pki.show()) for _ in range(3)]
    options = {"metadata": bearer(greedy), "timeout": 60}
    streams = [
        rpc.QueryStub(channels[n % 3]).Watch(pb.WatchRequest(follow=True), **options)
        for n in range(CALLS_OF_ONE)
    ]
    for stream in streams:
        next(stream)
    code, details = call(channel, "/clusterdep.v1.Query/ListProfiles", greedy)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED and "token greedy has 512 calls" in details
    assert call(channel, "/clusterdep.v1.Query/ListProfiles", tokens["viewer"])[0] is OK
    for stream in streams:
        stream.cancel()
    give_up = time.monotonic() + 20
    while call(channel, "/clusterdep.v1.Query/ListProfiles", greedy)[0] is not OK:
        assert time.monotonic() < give_up
    for other in channels:
        other.close()


def test_who_connects_and_says_nothing_keeps_nobody_out(served: Served) -> None:
    host, port = served.tls.split(":")
    silent = []
    for _ in range(CONNECTIONS + 40):
        try:
            silent.append(socket.create_connection((host, int(port)), 5))
        except OSError:
            break
    assert len(silent) >= CONNECTIONS, "they can connect"
    with grpc.insecure_channel(f"unix:{served.state}/clusterdep.sock") as local:
        assert call(local, "/clusterdep.v1.Query/ListProfiles")[0] is grpc.StatusCode.OK
    give_up = time.monotonic() + 40
    code = None
    while code is not UNKNOWN and time.monotonic() < give_up:
        with grpc.secure_channel(served.tls, served.pki.show()) as late:
            code, _ = call(late, "/clusterdep.v1.Query/ListProfiles")
        time.sleep(0.5)
    assert code is UNKNOWN, "those that say nothing are cut off after 10 s"
    for connection in silent:
        connection.close()


def test_refused_calls_are_counted(served: Served, channel: grpc.Channel) -> None:
    call(channel, "/clusterdep.v1.Query/ListProfiles")
    with urllib.request.urlopen(f"http://{served.metrics}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    counted = re.findall(r'^clusterdep_refused_calls_total{why="(\w+)"} (\d+)', text, re.M)
    assert {why: int(count) > 0 for why, count in counted}["unauthenticated"]


# -- what clients are told ---------------------------------------------------------------


def told(served: Served, address: str, *options: str, **environment: str) -> tuple[int, str]:
    """What `clusterdep status` says."""
    done = served.cli("events", "--address", address, *options, **environment)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def secret_file(directory: Path, name: str, secret: str) -> str:
    path = directory / name
    path.write_text(secret + "\n")
    path.chmod(0o600)
    return str(path)


def test_clients_are_told_exactly_what_is_wrong_with_tls(
    served: Served, tokens: dict[str, str], tmp_path: Path
) -> None:
    good = secret_file(tmp_path, "token", tokens["viewer"])
    ca = ("--ca", str(served.pki.ca))
    assert told(served, served.tls, *ca, "--token-file", good) == (0, "")
    assert told(served, served.tls, CLUSTERDEP_CA=ca[1], CLUSTERDEP_TOKEN_FILE=good) == (0, "")

    other = Pki(tmp_path / "other")
    code, said = told(served, served.tls, "--ca", str(other.ca), "--token-file", good)
    assert code == 77 and f"was not signed by the CA in {other.ca}" in said
    code, said = told(served, served.tls, "--token-file", good)
    assert code == 77 and "was not signed by a CA this program knows" in said
    code, said = told(served, served.tls, *ca)
    assert code == 77 and "no token came with the call" in said
    bad = secret_file(tmp_path, "bad", "cdt_" + "x" * 43)
    code, said = told(served, served.tls, *ca, "--token-file", bad)
    assert code == 77 and "the token is unknown, or was revoked" in said
    assert "x" * 43 not in said
    code, said = told(served, f"plaintext:{served.tls}")
    assert code == 78 and f"what serves at {served.tls} speaks TLS" in said
    code, said = told(served, served.plaintext, *ca)
    assert code == 78 and f"what serves at {served.plaintext} does not speak TLS" in said
    assert told(served, f"plaintext:{served.plaintext}") == (0, "")
    code, said = told(served, f"plaintext:{served.plaintext}", "--token-file", good)
    assert code == 78 and "would be sent to" in said and "unencrypted" in said
    code, said = told(served, "localhost:1", *ca)
    assert code == 69 and "nothing answers at localhost:1: Connection refused" in said
    code, said = told(served, "no-such-host.invalid:7", *ca)
    assert code == 69 and "there is no machine called no-such-host.invalid" in said
    code, said = told(served, "http://x", *ca)
    assert code == 64 and "is no address of a daemon" in said
    done = served.cli("select", "p", "--address", served.tls, *ca, "--token-file", good)
    assert done.returncode == 77
    assert "Select needs the role admin, and token a-viewer has viewer" in done.stderr


def test_clients_are_told_what_is_wrong_with_their_certificate(
    served: Served, tmp_path: Path
) -> None:
    ca = ("--ca", str(served.pki.ca))
    pki = Pki(tmp_path / "mine")
    theirs = served.pki

    def shown(pair: tuple[Path, Path]) -> tuple[int, str]:
        return told(served, served.mtls, *ca, "--cert", str(pair[0]), "--key", str(pair[1]))

    assert shown(theirs.issue("fine", "viewer")) == (0, "")
    code, said = told(served, served.mtls, *ca)
    assert code == 77 and "wants a certificate, and none was shown" in said
    code, said = shown(pki.issue("stranger", "admin"))
    assert code == 77 and "does not take the certificate" in said
    assert "issued by CN=mine" in said
    code, said = shown(theirs.issue("old", "admin", since=-10, days=5))
    assert code == 77 and "(old) expired on 2" in said
    code, said = shown(theirs.issue("early", "admin", since=1))
    assert code == 77 and "(early) is valid only from 2" in said
    code, said = shown(theirs.issue("daemon", hosts=("localhost",)))
    assert code == 77 and "(daemon) is not one of a client" in said
    mixed = (theirs.issue("one", "viewer")[0], theirs.issue("two", "viewer")[1])
    code, said = shown(mixed)
    assert code == 78 and "does not belong to the certificate" in said
    code, said = told(served, served.mtls, *ca, "--cert", str(mixed[0]))
    assert code == 78 and "only one is named" in said
    code, said = told(served, served.mtls, "--ca", str(tmp_path / "absent"))
    assert code == 78 and "absent cannot be read: No such file" in said
    mixed[1].chmod(0o644)
    code, said = told(served, served.mtls, *ca, "--cert", str(mixed[1]), "--key", str(mixed[1]))
    assert code == 78 and "holds no certificate in PEM" in said
    code, said = shown((mixed[0], mixed[1]))
    assert code == 78 and "is secret, and open to everybody" in said


def test_no_secret_is_written_anywhere(served: Served, tokens: dict[str, str]) -> None:
    call_log = served.log
    files = [path for path in served.state.rglob("*") if path.is_file()]
    assert any(path.name == "clusterdep.db" for path in files)
    for secret in tokens.values():
        assert secret not in call_log
        for path in files:
            assert secret.encode() not in path.read_bytes(), path
    events = served.cli("events", "--state", str(served.state), "--json").stdout
    assert "added by the Unix socket" in events and "cdt_" not in events
