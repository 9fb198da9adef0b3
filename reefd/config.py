# SPDX-License-Identifier: Apache-2.0
"""The daemon's configuration: defaults, reefd.yaml, then the command line, the later ones winning.

Root and ordinary users get defaults of their own, so that a service, a demo and tests on one box do not meet.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import stat
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from reefd import yamlfile
from reefd.yamlfile import FileError, Nanoseconds, Problem

SECOND_NS = 1_000_000_000
AbsolutePath = Annotated[str, Meta(pattern=r"^/[^\x00]*\Z", description="an absolute path")]
Duration = Annotated[Nanoseconds, Meta(description="a duration with its unit, for instance 500ms or 2s")]

# The name is part of the names of shared-memory objects, where dots separate the parts.
InstanceName = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}\Z", description="at most 32 letters, digits, - and _")
]


class ConfigError(FileError):
    """The configuration cannot be used."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every key of reefd.yaml. DESCRIPTIONS says what each means."""

    instance: InstanceName
    runtime_dir: AbsolutePath
    manifest_dir: AbsolutePath
    resource_dirs: Annotated[tuple[AbsolutePath, ...], Meta(description="a list of absolute paths")]
    device: Annotated[Literal["auto", "cpu", "cuda", "hip"], Meta(description="auto, cpu, cuda or hip")] = "auto"
    workers: Annotated[int, Meta(ge=0, le=1024, description="a whole number from 0 to 1024")] = 0
    policy: Annotated[
        Literal["reef", "reset", "wait", "streams", "sequential"],
        Meta(description="reef, reset, wait, streams or sequential"),
    ] = "reef"
    spinning: Annotated[Literal["auto", "always", "never"], Meta(description="auto, always or never")] = "auto"
    realtime: Annotated[bool, Meta(description="true or false")] = True
    max_sessions: Annotated[int, Meta(ge=1, le=2000, description="a whole number from 1 to 2000")] = 256
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="debug, info, warning or error")
    ] = "info"
    grace: Duration = Nanoseconds(2 * SECOND_NS)
    restart_grace: Duration = Nanoseconds(SECOND_NS // 10)
    reclaim_timeout: Duration = Nanoseconds(10 * SECOND_NS)
    device_timeout: Duration = Nanoseconds(3 * SECOND_NS // 2)
    strict: Annotated[bool, Meta(description="true or false")] = False

    @property
    def socket(self) -> Path:
        return Path(self.runtime_dir) / "reef.sock"

    @property
    def control_socket(self) -> Path:
        return Path(self.runtime_dir) / "control.sock"

    @property
    def state_dir(self) -> Path:
        return Path(self.runtime_dir) / "sessions"


DESCRIPTIONS = {
    "instance": "Part of the shared-memory names: two daemons that run at once need two names.",
    "runtime_dir": "Holds the sockets, the lock and what is kept of sessions over a restart.",
    "manifest_dir": "One *.yaml for each task.",
    "resource_dirs": "Compiled models, looked up by folder name in this order.",
    "device": "auto: a GPU of either kind where there is one, else the CPU; cpu, cuda, hip: this one.",
    "workers": "Compute units of the CPU device; 0: all that this process may run on.",
    "policy": "How real-time work gets its room: reef; or reset, wait, streams, sequential, to compare.",
    "spinning": "Whether the engine polls instead of sleeping: auto, only where it takes no work from the device.",
    "realtime": "Raise the engine and real-time work to SCHED_FIFO where the limits allow it.",
    "max_sessions": "Of all tasks together; a manifest has a limit of its own.",
    "log_level": "debug, info, warning or error.",
    "grace": "A stop waits this long for requests in flight; then they complete with -ESHUTDOWN.",
    "restart_grace": "The same before a restart (SIGUSR2); then they are left to the next daemon.",
    "reclaim_timeout": "After a restart a client has this long to come back before its session is dropped.",
    "device_timeout": "A kernel that finishes no block for so long is stuck: the daemon ends and is started again.",
    "strict": "Refuse to start when any manifest or resource is bad. false: the good ones are served.",
}


def is_system(uid: int) -> bool:
    """Root, or the user that the service runs as: they share the system's places."""
    try:
        return uid == 0 or pwd.getpwuid(uid).pw_name == "reefd"
    except KeyError:
        return False


def defaults(uid: int | None = None, environ: dict[str, str] | None = None) -> Config:
    """The configuration without a file: the system's places, or an ordinary user's own."""
    uid = os.geteuid() if uid is None else uid
    env = dict(os.environ) if environ is None else environ
    if is_system(uid):
        return Config(
            instance="reefd",
            runtime_dir="/run/reefd",
            manifest_dir="/etc/reefd/tasks.d",
            resource_dirs=("/var/lib/reefd/resource", "/usr/share/reefd/resource"),
        )
    home = Path(env.get("HOME") or f"/home/{uid}")
    config_home = _absolute(env.get("XDG_CONFIG_HOME")) or home / ".config"
    data_home = _absolute(env.get("XDG_DATA_HOME")) or home / ".local/share"
    runtime = _absolute(env.get("XDG_RUNTIME_DIR"))
    return Config(
        instance=f"user-{uid}",
        runtime_dir=str(runtime / "reefd") if runtime else f"/tmp/reefd-{uid}",
        manifest_dir=str(config_home / "reefd/tasks.d"),
        resource_dirs=(str(data_home / "reefd/resource"), "/var/lib/reefd/resource", "/usr/share/reefd/resource"),
    )


def _absolute(path: str | None) -> Path | None:
    return Path(path) if path and path.startswith("/") else None


def default_file(uid: int | None = None) -> Path:
    """/etc/reefd/reefd.yaml, or reefd.yaml beside the user's manifests."""
    uid = os.geteuid() if uid is None else uid
    return Path("/etc/reefd/reefd.yaml") if is_system(uid) else Path(defaults(uid).manifest_dir).parent / "reefd.yaml"


def load(path: Path | None, overrides: dict[str, Any]) -> Config:
    """Defaults, then the file (a missing default file is fine, a missing `path` is not), then overrides.

    Overrides are the command line's: values of None are left out. Raises ConfigError.
    """
    base = msgspec.structs.asdict(defaults())
    file = path or default_file()
    if path is not None or os.path.exists(file):  # noqa: PTH110 (one that cannot be reached is none)
        base |= _from_file(file)
    document = yamlfile.Document("command line")
    for entry in msgspec.structs.fields(Config):
        value = overrides.get(entry.name)
        if value is not None:
            option = "--" + entry.name.replace("_", "-")
            base[entry.name] = yamlfile.value_of(document, _node(value), entry.type, option)
    if document.problems:
        raise ConfigError(document.problems)
    return Config(**base)


def _node(value: Any) -> yamlfile.Node:
    return yamlfile.Node(0, 0, [_node(entry) for entry in value] if isinstance(value, list) else value)


def _from_file(path: Path) -> dict[str, Any]:
    document = yamlfile.read(path)
    root = document.root
    values: dict[str, Any] = {}
    if root is not None and root.value is not None:
        partial = msgspec.defstruct(
            "Partial",
            [(entry.encode_name, entry.type, msgspec.UNSET) for entry in msgspec.structs.fields(Config)],
            frozen=True,
        )
        found = yamlfile.convert(document, root, partial)
        values = msgspec.structs.asdict(found) if found is not None else {}
    # A file whose every key is commented out is empty to YAML, and the most common one.
    problems = [p for p in document.problems if root is not None or p.message != yamlfile.EMPTY]
    if problems:
        raise ConfigError(problems)
    return {key: value for key, value in values.items() if value is not msgspec.UNSET}


def render(config: Config, *, commented: bool = False) -> str:
    """The configuration as a reefd.yaml with a comment for each key; `commented`: every key commented out."""
    lines = ["# reefd.yaml: every key with its default. Uncomment what you change."] if commented else []
    for key, value in msgspec.structs.asdict(config).items():
        lines += ["", f"# {DESCRIPTIONS[key]}"] if commented else [f"# {DESCRIPTIONS[key]}"]
        lines.append(f"{'#' if commented else ''}{key}: {_yaml(value)}")
    return "\n".join(lines) + "\n"


_WORDS = frozenset(("yes", "no", "on", "off", "true", "false", "null"))


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Nanoseconds):
        unit, size = next(u for u in (("s", 10**9), ("ms", 10**6), ("us", 1000), ("ns", 1)) if value % u[1] == 0)
        return f"{value // size}{unit}"
    if isinstance(value, tuple):
        return "[" + ", ".join(_yaml(entry) for entry in value) + "]"
    plain = isinstance(value, int) or (re.fullmatch(r"[A-Za-z/][\w/.-]*", value) and value.lower() not in _WORDS)
    return str(value) if plain else json.dumps(value)


def prepare_runtime_dir(config: Config) -> None:
    """Makes the runtime directory where it is missing. Raises ConfigError for one in which others could plant a socket.

    A default one of an ordinary user is private; a directory named by the operator may be entered by the clients.
    """
    path = Path(config.runtime_dir)
    private = config.runtime_dir == defaults().runtime_dir and not is_system(os.geteuid())
    try:
        path.mkdir()
        path.chmod(0o700 if private else 0o755)
    except FileExistsError:
        pass
    except OSError as error:
        reason = f"runtime_dir cannot be made: {error.strerror}; make it, or choose another (--runtime-dir)"
        raise ConfigError([Problem(str(path), 0, 0, reason)]) from error
    problem = _unsafe(path.lstat(), private)
    if problem:
        raise ConfigError([Problem(str(path), 0, 0, f"runtime_dir {problem}; choose another (--runtime-dir)")])
    config.state_dir.mkdir(mode=0o700, exist_ok=True)
    if config.state_dir.lstat().st_uid != os.geteuid() or not stat.S_ISDIR(config.state_dir.lstat().st_mode):
        raise ConfigError([Problem(str(config.state_dir), 0, 0, "belongs to another user: remove it")])


def _unsafe(found: os.stat_result, private: bool) -> str | None:
    if not stat.S_ISDIR(found.st_mode):
        return "is not a directory"
    if found.st_uid != os.geteuid():
        return f"belongs to uid {found.st_uid}, not to uid {os.geteuid()}"
    if found.st_mode & 0o022:
        return f"may be written by others (mode {stat.S_IMODE(found.st_mode):04o})"
    if private and found.st_mode & 0o077:
        return f"may be entered by others (mode {stat.S_IMODE(found.st_mode):04o})"
    return None
