"""What an operator has set about hosts and jobs, and how it stands with clusterdep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Rules:
    """Settings that the dispatcher works by. Times are seconds, sizes bytes; 0: none."""

    dispatcher: str  # its name, stable over restarts
    slots: int = 0  # of a host; 0: as many as it has cores
    sandbox: str = "auto"  # auto, or one of engines.HostFacts.sandboxes
    sandbox_base: str = ""  # of chroot: a directory on the host, or a tar file here
    sandbox_memory: int = 0  # for what overlay and chroot change; 0: the host's disk
    build_user: str = ""
    search_path: str = ""
    time_limit: float = 8 * 3600.0
    stage_time_limit: float = 0.0
    log_limit: int = 256 * 2**20  # of one stage
    log_attempts: int = 10  # whose logs are kept, for each package
    most_time: float = 0.0  # for any build, whatever its grant says
    hosts: Mapping[str, Rules] = field(default_factory=dict)  # of those that have their own

    def of(self, host: str) -> Rules:
        """What a host works by."""
        return self.hosts.get(host, self)

    def limit(self, asked: float) -> float:
        """How long a build may take, whose grant says `asked`."""
        limit = asked or self.time_limit
        return min(limit or self.most_time, self.most_time) if self.most_time else limit


@dataclass
class Connection:
    """How it stands with clusterdep."""

    address: str
    connected: bool = False
    problem: str = ""
    errors: int = 0  # calls that failed
    exchanges: int = 0  # answers
