# SPDX-License-Identifier: Apache-2.0
"""Manifests: one YAML file for each task says which models it runs, in which class, and who may submit.

docs/manifest.md describes every key for people; a test keeps the two together.
"""

from __future__ import annotations

import grp
import pwd
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from reefd import yamlfile
from reefd.yamlfile import Bytes, Document, FileError, Nanoseconds, Problem

MAX_MODELS = 64  # REEF_MAX_MODELS
# Keys that are part of the format and that nothing acts upon yet: who gives one is told so.
RESERVED = ("shm",)

# A task's name is part of the names of its shared-memory objects, where dots separate the parts.
TaskName = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z", description="a name of at most 63 letters, digits, - and _"),
]
ModelName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}\Z",
        description="the name of a resource folder, at most 63 letters, digits, - _ and .",
    ),
]
Duration = Annotated[Nanoseconds, Meta(description="a duration with its unit, for instance 500us, 50ms or 2s")]
Size = Annotated[Bytes, Meta(description="a size with its unit, for instance 64MiB")]
Principal = Annotated[
    Annotated[str, Meta(pattern=r"^[^\s:/]{1,256}\Z")] | Annotated[int, Meta(ge=0, le=0xFFFF_FFFE)],
    Meta(description="a name, or a number from 0 to 4294967294"),
]


class Allow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may open a session: any of the users, or any member of the groups."""

    users: Annotated[tuple[Principal, ...], Meta(description="a list of user names or numbers")] = ()
    groups: Annotated[tuple[Principal, ...], Meta(description="a list of group names or numbers")] = ()


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Latencies that are promised and watched; 0 promises nothing."""

    queueing: Duration = Nanoseconds(0)
    preemption: Duration = Nanoseconds(0)
    execution: Duration = Nanoseconds(0)
    end_to_end: Duration = Nanoseconds(0)
    budget: Annotated[
        float, Meta(ge=0, le=1, description="the share of requests that may break a bound, 0 to 1, for instance 0.001")
    ] = 0.0


class PreemptBound(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bound for each kind of device; 0 promises nothing there."""

    cpu: Duration = Nanoseconds(0)
    cuda: Duration = Nanoseconds(0)
    hip: Duration = Nanoseconds(0)


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A task. Field names are the keys of the file (`class` is `task_class`)."""

    version: Annotated[Literal[1], Meta(description="the number 1")]
    task: TaskName
    task_class: Annotated[Literal["rt", "be"], Meta(description="rt (real-time) or be (best-effort)")] = msgspec.field(
        name="class"
    )
    model: ModelName | None = None
    models: Annotated[
        dict[ModelName, ModelName],
        Meta(min_length=1, max_length=MAX_MODELS, description=f"1 to {MAX_MODELS} entries `name: resource`"),
    ] = {}
    deadline: Duration = Nanoseconds(0)
    rate: (
        Annotated[float, Meta(gt=0, le=1e6, description="a number of requests a second above 0, for instance 20")]
        | None
    ) = None
    slots: Annotated[int, Meta(ge=1, le=1024, description="a whole number from 1 to 1024")] = 4
    allow: Allow | None = None
    max_sessions: Annotated[int, Meta(ge=1, le=2000, description="a whole number from 1 to 2000")] = 16
    queue: Annotated[Literal["fail", "block", "latest"], Meta(description="fail, block or latest")] = "fail"
    priority: Annotated[int, Meta(ge=0, le=99, description="a whole number from 0 to 99, the higher the sooner")] = 0
    preemptible: Annotated[bool, Meta(description="true or false")] = False
    weight: Annotated[int, Meta(ge=1, le=10000, description="a whole number from 1 to 10000")] = 100
    bounds: Bounds = Bounds()
    preempt_bound: Annotated[
        Duration | PreemptBound,
        Meta(
            description="a duration with its unit, for instance 100us, or one for each device: {cpu: 100us, hip: 60us}"
        ),
    ] = Nanoseconds(0)
    enforce: Annotated[Literal["refuse", "warn"], Meta(description="refuse or warn")] = "refuse"
    device: Annotated[
        str,
        Meta(pattern=r"^(auto|cpu|(cuda|hip)(:[0-9]{1,3})?)\Z", description="auto, cpu, cuda, hip, or cuda:1, hip:1"),
    ] = "auto"
    memory: Size = Bytes(0)
    crc: Annotated[bool, Meta(description="true or false")] = False
    payload_crc: Annotated[bool, Meta(description="true or false")] = False
    shm: Annotated[Literal["named", "sealed"], Meta(description="named or sealed")] = "named"

    def resources(self) -> dict[str, str]:
        """Model name, as clients see it -> resource name. The order is the models' index in a submission."""
        return {self.model: self.model} if self.model is not None else dict(self.models)

    def preempt_bound_ns(self, device: str) -> int:
        """What is promised on a kind of device (cpu, cuda, hip); 0: nothing."""
        bound = self.preempt_bound
        return int(getattr(bound, device, 0)) if isinstance(bound, PreemptBound) else int(bound)


class ManifestError(FileError):
    """A manifest cannot be used; `problems` has every reason with its line and column."""


def load(path: Path) -> tuple[Manifest, list[Problem]]:
    """Reads one manifest. Returns it with warnings. Raises ManifestError."""
    return _finish(yamlfile.read(path))


def parse(data: bytes, file: str) -> tuple[Manifest, list[Problem]]:
    """The same from bytes; `file` stands in the messages."""
    document = Document(file)
    yamlfile.parse(document, data)
    return _finish(document)


def _finish(document: Document) -> tuple[Manifest, list[Problem]]:
    root = document.root
    manifest: Manifest | None = None
    if root is not None:
        manifest = yamlfile.convert(document, root, Manifest)
        _check_together(document, root)
    if document.problems or manifest is None:
        raise ManifestError(document.problems)
    return manifest, _warnings(document, manifest)


def _check_together(document: Document, root: yamlfile.Node) -> None:
    """What no single value shows."""
    model, models = root.get("model"), root.get("models")
    if root.is_mapping and model is None and models is None:
        document.problem(root, "model is missing: add `model: NAME`, or `models: {name: NAME, ...}`")
    if model is not None and models is not None:
        document.problem(models, "models: model is given too; keep one of them")
    if model is not None and model.value is None:
        document.problem(model, "model: got nothing, expected the name of a resource folder")
    task_class = root.get("class")
    if task_class is not None and task_class.value == "be":
        for key in ("bounds", "priority", "preemptible"):
            node = root.get(key)
            if node is not None:
                document.problem(node, f"{key}: only real-time tasks have it; remove it, or write `class: rt`")
        if root.get("enforce") is not None and root.get("preempt_bound") is None:
            document.problem(root.get("enforce"), "enforce: nothing to enforce; add preempt_bound, or remove it")
        bound = root.get("preempt_bound")
        if bound is not None and bound.is_mapping and not bound.value:
            document.problem(bound, "preempt_bound: no device in it; write for instance {cpu: 100us}, or remove it")
    if task_class is not None and task_class.value == "rt":
        for key in ("weight", "preempt_bound", "enforce"):
            node = root.get(key)
            if node is not None:
                document.problem(node, f"{key}: only best-effort tasks have it; remove it, or write `class: be`")


def _warnings(document: Document, manifest: Manifest) -> list[Problem]:
    """What may be meant, but deserves a look. Users are looked up when they connect, so they may be created later."""
    warnings = Document(document.file)
    for key in RESERVED:
        node = document.root.get(key) if document.root else None
        if node is not None:
            warnings.problem(node, f"{key}: checked, but not in effect in this version")
    allow = document.root.get("allow") if document.root else None
    for key, exists in (("users", _user_exists), ("groups", _group_exists)):
        node = allow.get(key) if allow else None
        for entry in node.value if node and isinstance(node.value, list) else []:
            if isinstance(entry, yamlfile.Node) and not exists(entry.value):
                kind = key[:-1]
                create = "useradd" if kind == "user" else "groupadd"
                name = yamlfile.shorten(str(entry.value))
                warnings.problem(entry, f'allow.{key}: there is no {kind} "{name}" here yet; {create}, or correct it')
    if manifest.allow is not None and not manifest.allow.users and not manifest.allow.groups:
        warnings.problem(allow, "allow: nobody but root may submit; name users or groups, or remove the key")
    return warnings.problems


def _user_exists(name: object) -> bool:
    try:
        return isinstance(name, int) or bool(pwd.getpwnam(str(name)))
    except (KeyError, ValueError):
        return False


def _group_exists(name: object) -> bool:
    try:
        return isinstance(name, int) or bool(grp.getgrnam(str(name)))
    except (KeyError, ValueError):
        return False


def files_of(directory: Path) -> list[Path]:
    """The manifests of a directory: *.yaml and *.yml, hidden ones left out. Raises OSError."""
    return sorted(p for p in directory.iterdir() if p.suffix in (".yaml", ".yml") and not p.name.startswith("."))


def load_files(paths: list[Path]) -> tuple[dict[Path, Manifest], list[Problem], list[Problem]]:
    """Reads many manifests: the good ones, all problems, all warnings. Two files of one task are both refused."""
    good: dict[Path, Manifest] = {}
    problems: list[Problem] = []
    warnings: list[Problem] = []
    for path in paths:
        try:
            good[path], found = load(path)
            warnings += found
        except ManifestError as error:
            problems += error.problems
    return _refuse_doubles(good, problems), problems, warnings


def _refuse_doubles(manifests: dict[Path, Manifest], problems: list[Problem]) -> dict[Path, Manifest]:
    files: dict[str, list[Path]] = {}
    for path, manifest in manifests.items():
        files.setdefault(manifest.task, []).append(path)
    for task, paths in files.items():
        if len(paths) > 1:
            for path in paths:
                others = ", ".join(str(p) for p in paths if p != path)
                problems.append(Problem(str(path), 0, 0, f"task {task} is also in {others}: give each task one file"))
    return {path: manifest for path, manifest in manifests.items() if len(files[manifest.task]) == 1}
