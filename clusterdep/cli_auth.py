"""Commands that let others in: cert token."""

from __future__ import annotations

import argparse
import datetime
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clusterdep.api import client, roles
from clusterdep.api.errors import Fault, Kind
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.cli_call import DEADLINE, Caller, ask, print_json, print_table

DAY = 86400.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST = re.compile(
    r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*"
)


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Mounts the commands of this module."""
    _add_cert(commands, common)
    _add_token(commands, common)


def _add_cert(commands: Any, common: argparse.ArgumentParser) -> None:
    cert = commands.add_parser("cert", help="make certificates for daemons and clients")
    verbs = cert.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str, more: str = "") -> Any:
        command = verbs.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}. {more}", parents=[common]
        )
        command.add_argument(
            "--dir", metavar="DIR", help="of the CA; default: ca in the daemon's state directory"
        )
        command.set_defaults(run=run)
        return command

    init = add("init", _init, "make a CA", "Guard its key: who has it lets in everybody.")
    init.add_argument("--name", default="clusterdep CA", help="what it is called")
    init.add_argument("--days", type=_days, default=3650, help="how long it lasts; default 3650")
    issue = add(
        "issue",
        _issue,
        "issue a certificate with its key",
        "For a daemon name its hosts, for a client its role, for a dispatcher that is asked "
        "over TLS itself both.",
    )
    issue.add_argument("name", metavar="NAME", type=_name, help="whose it is; also of the files")
    issue.add_argument("--role", choices=roles.ROLES, default="", help="what its holder may")
    issue.add_argument(
        "--host",
        metavar="HOST",
        type=_host,
        action="append",
        default=[],
        help="name or address under which the daemon is reached; repeat it for each",
    )
    issue.add_argument("--days", type=_days, default=365, help="how long it lasts; default 365")
    issue.add_argument("--out", metavar="DIR", help="where it is written; default: that of the CA")
    issue.add_argument(
        "--renew",
        action="store_true",
        help="replace the one that is there by one for the same role and hosts",
    )
    revoke = add(
        "revoke",
        _revoke,
        "put a certificate on the list of those that count no more",
        "Daemons read the list again when it changes: the file 'revoked' beside the CA, which is "
        "to be copied to where tls_revoked names it.",
    )
    revoke.add_argument("certificate", metavar="FILE", type=Path, help="the certificate")


def _add_token(commands: Any, common: argparse.ArgumentParser) -> None:
    token = commands.add_parser("token", help="make bearer tokens, list and revoke them")
    verbs = token.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[..., Any], text: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = verbs.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", parents=[common]
        )
        made.add_argument("--json", action="store_true", help="one JSON object a line")
        made.set_defaults(run=lambda args: ask(args, lambda caller: run(caller, args)))
        return made

    add = command("add", _token_add, "make a token; it is told this once")
    add.add_argument("name", metavar="NAME", help="what it is called")
    add.add_argument("--role", choices=roles.ROLES, required=True, help="what its holder may")
    add.add_argument("--days", type=_days, default=0, help="how long it lasts; default: for ever")
    add.add_argument("--out", metavar="FILE", type=Path, help="write it there, not to the screen")
    command("list", _token_list, "list tokens, without what is secret")
    revoke = command("revoke", _token_revoke, "a token counts no more, at once")
    revoke.add_argument("name", metavar="NAME")


# -- what an argument must be ------------------------------------------------------------


def _days(text: str) -> float:
    days = float(text)
    if not 0 < days <= 36500:
        raise argparse.ArgumentTypeError("must be more than 0, and at most 36500")
    return days


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError("must be letters, digits, and . _ -")
    return text


def _host(text: str) -> str:
    if not _HOST.fullmatch(text.strip("[]")):
        raise argparse.ArgumentTypeError("must be the name or the address of a machine")
    return text


# -- cert --------------------------------------------------------------------------------


def _directory(args: argparse.Namespace) -> Path:
    if args.dir:
        return Path(args.dir)
    return (Path(args.state) if args.state else client.default_state("clusterdep")) / "ca"


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def _init(args: argparse.Namespace) -> int:
    from clusterdep.authority import Authority  # noqa: PLC0415  only these pay for cryptography

    authority = Authority(_directory(args))
    authority.init(args.name, args.days, _now())
    print(authority.certificate)
    return os.EX_OK


def _issue(args: argparse.Namespace) -> int:
    from clusterdep.authority import Authority, Wanted, wanted_again  # noqa: PLC0415

    directory = _directory(args)
    target = Path(args.out) if args.out else directory
    wanted = Wanted(args.name, args.role, tuple(args.host), args.days)
    if args.renew:
        if args.role or args.host:
            raise Fault(Kind.USAGE, "--renew keeps the role and the hosts: name neither")
        wanted = wanted_again(target / f"{args.name}.crt", args.days)
    elif not (args.role or args.host):
        raise Fault(
            Kind.USAGE,
            "a certificate is for a client, with --role, or a daemon, with --host, or both",
        )
    print(Authority(directory).issue(wanted, target, _now(), args.renew))
    return os.EX_OK


def _revoke(args: argparse.Namespace) -> int:
    from clusterdep.authority import Authority  # noqa: PLC0415

    print(Authority(_directory(args)).revoke(args.certificate, _now()))
    return os.EX_OK


# -- token -------------------------------------------------------------------------------


async def _token_add(caller: Caller, args: argparse.Namespace) -> int:
    request = pb.AddTokenRequest(name=args.name, role=args.role, lasts=args.days * DAY)
    out = _reserve(args.out) if args.out else None
    try:
        answer = await caller.admin.AddToken(request, timeout=DEADLINE)
    except BaseException:
        if out is not None:
            os.close(out)
            args.out.unlink()
        raise
    if out is not None:
        with os.fdopen(out, "w") as file:
            file.write(f"{answer.secret}\n")
    if args.json:
        print_json(answer.token, **({} if args.out else {"secret": answer.secret}))
    elif not args.out:
        print(answer.secret)
        if sys.stdout.isatty():
            print(f"{args.name} is told this once: keep it in a file", file=sys.stderr)
    return os.EX_OK


def _reserve(path: Path) -> int:
    """A new file that only we can read, open for writing."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise Fault(Kind.EXISTS, f"{path} exists, and is not replaced") from error
    except OSError as error:
        what = f"{path} cannot be written: {error.strerror}"
        raise Fault(Kind.CANNOT_CREATE, what) from error


async def _token_list(caller: Caller, args: argparse.Namespace) -> int:
    answer = await caller.admin.ListTokens(pb.ListTokensRequest(), timeout=DEADLINE)
    if args.json:
        for token in answer.tokens:
            print_json(token)
        return os.EX_OK
    rows = [(t.name, t.role, _date(t.created), _state(t)) for t in answer.tokens]
    print_table(rows, ("NAME", "ROLE", "MADE", "STATE"))
    return os.EX_OK


def _state(token: pb.Token) -> str:
    if token.revoked:
        return f"revoked {_date(token.revoked)}"
    if not token.expires:
        return "counts"
    word = "expired" if token.expires <= time.time() else "counts until"
    return f"{word} {_date(token.expires)}"


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds))


async def _token_revoke(caller: Caller, args: argparse.Namespace) -> int:
    request = pb.RevokeTokenRequest(name=args.name)
    answer = await caller.admin.RevokeToken(request, timeout=DEADLINE)
    if args.json:
        print_json(answer)
    return os.EX_OK
