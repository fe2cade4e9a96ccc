"""The command line: hosts to play with, and what can be done to them."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from demo_cluster import Cluster, ClusterError, NamespaceCluster, attach, make

ROOT = Path(__file__).resolve().parents[2]

#: What can be done to a host from another terminal: the method of a cluster, and what it is.
DEEDS: dict[str, tuple[str, str]] = {
    "cut": ("cut", "cut its link: nothing comes through, and nobody is told"),
    "restore": ("restore", "mend its link"),
    "off": ("power_off", "pull its plug"),
    "on": ("power_on", "switch it on again, with what it had on its disk"),
    "kill": ("kill", "end all its processes at once"),
    "slow": ("slow", "make its link slow; --rate BYTES a second, --latency SECONDS"),
    "fast": ("fast", "make its link fast again"),
    "fill": ("fill_disk", "fill its disk"),
    "free": ("free_disk", "make room on its disk again"),
    "restart-sshd": ("restart_sshd", "end its sshd and all connections, and start it again"),
    "new-key": ("change_host_key", "give it another host key, which is not in known_hosts"),
    "trust": ("trust", "put the host key it has now into known_hosts"),
}

PLAY = """\
The hosts {hosts} are up. From another terminal:

  {clusterbuild} hosts --state {state}
  {tool} ssh {one}        a shell there; or a command after the name
  {tool} ps {one}         what runs there
{more}  {tool} --help        all that can be done to a host
"""
MORE = """\
  {tool} cut {one}        cut its link; then `restore {one}`
  {tool} off {one}        pull its plug; then `on {one}`
  {tool} slow {one} --rate 20000 --latency 0.2; then `fast {one}`
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="demo-cluster",
        description="Hosts with real sshd on this machine. As root, each has a network, processes "
        "and a file system of its own; otherwise each is an sshd on a port of 127.0.0.1.",
    )
    top.add_argument(
        "--directory",
        metavar="DIR",
        type=Path,
        default=ROOT / "var/demo",
        help="where the cluster keeps its files (default: var/demo)",
    )
    commands = top.add_subparsers(metavar="COMMAND", dest="command")
    up = commands.add_parser(
        "up",
        allow_abbrev=False,
        help="start the hosts and `clusterbuild run` with them; stay until Ctrl-C (the default)",
        description="Starts the hosts and both daemons, and builds the example tree. PKGSRCDIR, "
        "KIT and PACKAGES in the environment mean what they mean to `make run`; other options go "
        "to `clusterbuild run`.",
    )
    up.add_argument("--hosts", type=int, default=3, metavar="N", help="how many (default: 3)")
    up.add_argument("--slots", type=int, default=1, metavar="N", help="of each (default: 1)")
    up.add_argument("--once", action="store_true", help="end when nothing is left to do")
    up.add_argument("--keep", action="store_true", help="go on from what was built the last time")
    for name, (_, what) in DEEDS.items():
        one = commands.add_parser(name, help=what)
        one.add_argument("host")
        if name == "slow":
            one.add_argument("--rate", type=float, default=0.0, help="bytes a second")
            one.add_argument("--latency", type=float, default=0.0, help="seconds, each way")
    ssh = commands.add_parser("ssh", help="a shell on a host, or a command, by ssh")
    ssh.add_argument("host")
    ssh.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    commands.add_parser("ps", help="what runs on a host").add_argument("host")
    return top


def bring_up(args: argparse.Namespace, more: Sequence[str]) -> int:
    """Starts it all, and takes it down again in the end."""
    state: Path = args.directory / "state"
    cluster = make(
        args.directory / "cluster", [f"h{n}" for n in range(1, args.hosts + 1)], args.slots
    )
    if why := NamespaceCluster.obstacle():
        print(f"Hosts on ports of 127.0.0.1, for a network of their own is not to be had: {why}")
    if not args.keep and not cluster.running():
        shutil.rmtree(state, ignore_errors=True)
    args.directory.mkdir(parents=True, exist_ok=True)
    with cluster:
        print(play(cluster, state, whole=not why), flush=True)
        environment = {**os.environ, "HOSTS": str(cluster.hosts_file), "STATE": str(state)}
        program = str(ROOT / ".venv/bin/clusterbuild")
        words = ["sh", "tools/run", program, "--once" if args.once else "--serve", *more]
        run = subprocess.Popen(cluster.enter(*words), cwd=ROOT, env=environment)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda which, _: run.send_signal(which))
        while True:
            try:
                return run.wait()
            except KeyboardInterrupt:
                continue  # it got the signal, too, and has the last word


def play(cluster: Cluster, state: Path, *, whole: bool) -> str:
    """What people can do with it."""
    words = {
        "hosts": ", ".join(cluster.names),
        "one": cluster.names[-1],
        "tool": shorter(ROOT / "tools/demo-cluster"),
        "clusterbuild": shorter(ROOT / ".venv/bin/clusterbuild"),
        "state": shorter(state),
    }
    return PLAY.format(more=MORE.format(**words) if whole else "", **words)


def shorter(path: Path) -> str:
    """A path as one would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def visit(cluster: Cluster, args: argparse.Namespace) -> int:
    """A command on a host, or a look at it, or something done to it."""
    if args.command == "ssh":
        argv = cluster.ssh_command(args.host, *args.words)
        os.execvp(argv[0], argv)
    if args.command == "ps":
        for process in cluster.processes(args.host):
            print(f"{process.inner:>8} {process.command}")
        return os.EX_OK
    deed: Callable[..., None] = getattr(cluster, DEEDS[args.command][0])
    if args.command == "slow":
        deed(args.host, args.rate, args.latency)
    else:
        deed(args.host)
    return os.EX_OK


def main(words: Sequence[str]) -> int:
    """Runs one command; returns its exit code."""
    args, more = parser().parse_known_args(words)
    args.directory = args.directory.absolute()
    try:
        if args.command is None:
            args = parser().parse_args([*words, "up"])
        if args.command == "up":
            return bring_up(args, more)
        if more:
            parser().error(f"unrecognized: {' '.join(more)}")
        return visit(attach(args.directory / "cluster"), args)
    except ClusterError as problem:
        print(f"demo-cluster: {problem}", file=sys.stderr)
        return os.EX_UNAVAILABLE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
