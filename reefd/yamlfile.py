# SPDX-License-Identifier: Apache-2.0
"""Reading a YAML file that people write: strict, with the place of every value, and all problems at once.

The scalars are those of YAML 1.2's core schema. What YAML 1.1 would read differently (no, 010, 1:30, 1_000) is refused
with a hint, since half of the tools an operator knows read it one way and half the other. The file is parsed as a
stream of events, without recursion, so that depth costs nothing and aliases cannot blow up.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
import yaml

MAX_BYTES = 256 * 1024
MAX_DEPTH = 16
MAX_NODES = 20_000
MAX_SCALAR = 4096
MAX_PROBLEMS = 100
MAX_MESSAGE = 600
EMPTY = "the file is empty"

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong, where, and what to do. Lines and columns count from 1; 0: the file as a whole."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}" if self.line else f"{self.file}: {self.message}"


class FileError(Exception):
    """A file that people wrote cannot be used. Its text is one line for each problem."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(map(str, self.problems)))


class Nanoseconds(int):
    """A duration, written 500us, 50ms, 2s or 1min."""


class Bytes(int):
    """A size, written 4096, 64KiB, 64MiB or 2GiB."""


@dataclass(slots=True)
class Node:
    """A value of the file: a scalar, a list of nodes, or a list of (key, value) pairs of nodes."""

    line: int
    column: int
    value: Scalar | list[Node] | list[tuple[Node, Node]]
    is_mapping: bool = False
    refused: bool = False  # a problem was noted already: one is enough

    def items(self) -> list[tuple[Node, Node]]:
        return self.value if self.is_mapping else []  # type: ignore[return-value]

    def get(self, key: str) -> Node | None:
        return next((value for name, value in self.items() if name.value == key), None)


class Document:
    """A parsed file and the problems found in it so far."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.found = 0  # problems, those beyond MAX_PROBLEMS too
        self.root: Node | None = None

    def problem(self, node: Node | None, message: str) -> None:
        line, column = (node.line, node.column) if node else (0, 0)
        self.found += 1
        if self.found <= MAX_PROBLEMS:
            self.problems.append(Problem(self.file, line, column, shorten(message, MAX_MESSAGE)))


# ---------------------------------------------------------------- bytes -> text -> nodes


def read(path: Path) -> Document:
    """Reads and parses a file; problems are collected in the document, nothing is raised."""
    document = Document(str(path))
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                document.problem(None, "not a regular file")
                return document
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        document.problem(None, f"cannot be read: {reason}")
        return document
    parse(document, data)
    return document


def parse(document: Document, data: bytes) -> None:
    """Fills in the document's root; None where the file could not be followed to its end."""
    if len(data) > MAX_BYTES:
        return document.problem(None, f"larger than {MAX_BYTES // 1024} KiB: this is no file that a person wrote")
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        place = Node(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1, None)
        return document.problem(place, f"byte 0x{data[error.start]:02x} is not UTF-8: save the file as UTF-8")
    try:
        document.root = _compose(document, text)
    except _Unfit as error:
        document.problem(error.node, str(error))
    except yaml.reader.ReaderError as error:
        character = error.character if isinstance(error.character, int) else ord(error.character[:1] or "\0")
        index = max(text.find(chr(character)), 0)
        place = Node(text.count("\n", 0, index) + 1, index - (text.rfind("\n", 0, index) + 1) + 1, None)
        document.problem(place, f"character U+{character:04X} is not allowed in YAML: remove it")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Node(mark.line + 1, mark.column + 1, None) if mark else Node(1, 1, None)
        document.problem(place, f"not YAML: {error.problem or error.context}; check indentation, colons and quotes")
    except (yaml.YAMLError, ValueError) as error:
        document.problem(None, f"not YAML: {' '.join(str(error).split())}")
    return None


class _Unfit(Exception):
    """The rest of the file is not worth reading."""

    def __init__(self, node: Node, message: str) -> None:
        super().__init__(message)
        self.node = node


@dataclass(slots=True)
class _Open:
    """A collection whose end was not seen yet; in a mapping, the key that waits for its value."""

    node: Node
    key: Node | None = None
    keys: set[str] = field(default_factory=set)


def _compose(document: Document, text: str) -> Node:
    """Builds the tree. A stack of open collections stands for recursion."""
    root: Node | None = None
    stack: list[_Open] = []
    nodes = 0
    loader = yaml.CBaseLoader if yaml.__with_libyaml__ else yaml.BaseLoader
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.DocumentStartEvent) and root is not None:
            raise _Unfit(_place(event), "a second document begins here: one file holds one document")
        if isinstance(event, yaml.AliasEvent):
            raise _Unfit(_place(event), f"alias *{shorten(event.anchor or '')}: not allowed, write the value out")
        if isinstance(event, yaml.CollectionEndEvent):
            stack.pop()
        if not isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            continue
        nodes += 1
        if nodes > MAX_NODES or len(stack) >= MAX_DEPTH:
            limit = f"more than {MAX_NODES} values" if nodes > MAX_NODES else f"nested deeper than {MAX_DEPTH} levels"
            raise _Unfit(_place(event), f"{limit}: this is no file that a person wrote")
        node = _node(document, event)
        root = root or node
        if stack:
            _append(document, stack[-1], node)
        if isinstance(event, yaml.CollectionStartEvent):
            stack.append(_Open(node))
    if root is None:
        raise _Unfit(Node(1, 1, None), EMPTY)
    return root


def _node(document: Document, event: Any) -> Node:
    node = _place(event)
    if event.anchor:
        document.problem(node, f"anchor &{shorten(event.anchor)}: remove it, anchors and aliases are not allowed")
    if event.tag:
        node.refused = True
        document.problem(node, f"tag {shorten(event.tag)}: remove it, the key decides the type")
    if not isinstance(event, yaml.ScalarEvent):
        node.value, node.is_mapping = [], isinstance(event, yaml.MappingStartEvent)
    elif len(event.value) > MAX_SCALAR:
        node.refused = True
        document.problem(node, f"a value of {len(event.value)} characters: at most {MAX_SCALAR} are allowed")
    else:
        plain = event.implicit[0]
        node.value = _scalar(document, node, event.value) if plain else event.value
    return node


def _place(event: Any) -> Node:
    return Node(event.start_mark.line + 1, event.start_mark.column + 1, None)


def _append(document: Document, parent: _Open, node: Node) -> None:
    entries: list[Any] = parent.node.value  # type: ignore[assignment]
    if not parent.node.is_mapping:
        entries.append(node)
    elif parent.key is None:
        parent.key = node
    else:
        key, parent.key = parent.key, None
        if not isinstance(key.value, str):
            document.problem(key, f"{show(key)} as a key: keys are words; quote it if it is meant")
        elif key.value in parent.keys:
            document.problem(key, f"{shorten(key.value)}: given twice; keep one of them")
        else:
            parent.keys.add(key.value)
            entries.append((key, node))


# ---------------------------------------------------------------- plain scalars

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_OLD_OCTAL = re.compile(r"[-+]?0[0-9]+")
_OLD_BINARY = re.compile(r"[-+]?0b[01_]+")
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_UNDERSCORES = re.compile(r"[-+]?(0x)?[0-9][0-9a-fA-F_]*_[0-9a-fA-F_]*(\.[0-9_]*)?")
_OLD_BOOLEAN = frozenset(("yes", "no", "on", "off"))
_CONSTANTS: dict[str, Scalar] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_CONSTANTS |= {word: value for value in (True, False) for word in (str(value), str(value).lower(), str(value).upper())}


def _scalar(document: Document, node: Node, text: str) -> Scalar:
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    hint = None
    if text.lower() in _OLD_BOOLEAN:
        hint = f'write true or false, or quote it ("{text}") if the word is meant'
    elif _OLD_OCTAL.fullmatch(text) or _OLD_BINARY.fullmatch(text):
        hint = "old and new YAML read this number differently; write it in decimal, without leading zeros"
    elif _SEXAGESIMAL.fullmatch(text):
        hint = "old YAML reads this as a number to base 60; quote it if text is meant"
    elif _UNDERSCORES.fullmatch(text):
        hint = "old and new YAML read this differently; write the number without underscores"
    elif _NOT_FINITE.fullmatch(text):
        hint = "only finite numbers are allowed"
    if hint:
        document.problem(node, f"{text}: {hint}")
        node.refused = True
        return text
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            document.problem(node, f"{shorten(text)}: too large for a number")
            node.refused = True
            return 0.0
        return number
    return text


# ---------------------------------------------------------------- nodes -> structs


def convert(document: Document, node: Node, cls: type[Any], context: str = "") -> Any:
    """A mapping as the msgspec struct `cls`, or None with problems noted. Every field is tried, so all are reported."""
    before = document.found
    context = shorten(context)
    if not node.is_mapping:
        document.problem(node, f"{context or 'the file'}: {show(node)}, expected keys and values")
        return None
    fields = {entry.encode_name: entry for entry in msgspec.structs.fields(cls)}
    values: dict[str, Any] = {}
    prefix = f"{context}." if context else ""
    for key, value in node.items():
        known = fields.get(str(key.value))
        if known is None:
            unknown = shorten(prefix + str(key.value))
            document.problem(key, f"unknown key {unknown}{_did_you_mean(str(key.value), fields)}")
        else:
            values[known.name] = value_of(document, value, known.type, prefix + known.encode_name)
    for name, known in fields.items():
        if known.required and node.get(name) is None:
            document.problem(node, f"{prefix}{name} is missing: add it ({_description(known.type)})")
    return None if document.found > before else cls(**values)


def value_of(document: Document, node: Node, kind: Any, context: str) -> Any:
    """A node as `kind`; None with a problem noted where it is none. `context` names the key in messages."""
    if node.refused:
        return None
    plain, struct = _strip(kind), _struct_of(kind)
    if struct is not None and (node.is_mapping or not _accepts_scalar(plain)):
        return convert(document, node, struct, context)
    if struct is not None:  # one value that stands for all of its fields
        return _leaf(document, node, _scalar_of(kind), context, node.value, _description(kind))
    before, found = document.found, node.value
    if get_origin(plain) is tuple and isinstance(found, list) and not node.is_mapping:
        item = get_args(plain)[0]
        values = tuple(value_of(document, entry, item, f"{context}[{i}]") for i, entry in enumerate(found))  # type: ignore[arg-type]
        return _leaf(document, node, kind, context, values) if document.found == before else None
    if get_origin(plain) is dict and node.is_mapping:
        key_kind, item = get_args(plain)
        pairs = {}
        for key, value in node.items():
            name = _leaf(document, key, key_kind, context, key.value)
            pairs[name] = value_of(document, value, item, f"{context}.{name}")
        return _leaf(document, node, kind, context, pairs) if document.found == before else None
    if isinstance(node.value, list):
        document.problem(node, f"{context}: {show(node)}, expected {_description(kind)}")
        return None
    return _leaf(document, node, kind, context, node.value)


def _leaf(document: Document, node: Node, kind: Any, context: str, value: Any, expected: str = "") -> Any:
    try:
        return msgspec.convert(value, kind, dec_hook=_from_text)
    except (msgspec.ValidationError, OverflowError):
        document.problem(node, f"{context}: {show(node)}, expected {expected or _description(kind)}")
        return None


_UNITS: dict[type, dict[str, int]] = {
    Nanoseconds: {"ns": 1, "us": 1000, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9},
    Bytes: {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "kB": 10**3, "MB": 10**6, "GB": 10**9},
}


def _from_text(kind: type, value: Any) -> Any:
    """Durations and sizes. A bare number is no duration: whether it means milliseconds or seconds is anyone's guess."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)", str(value))
    unit = _UNITS[kind].get(match[2]) if match and not isinstance(value, bool) else None
    if match is None or unit is None:
        raise ValueError("not a number with a unit")
    number = float(match[1]) * unit if "." in match[1] else int(match[1]) * unit
    if number >= 1 << 62:
        raise ValueError("too large")
    return kind(round(number))


def _strip(kind: Any) -> Any:
    """The type inside Annotated."""
    return get_args(kind)[0] if hasattr(kind, "__metadata__") else kind


def _arms(kind: Any) -> Iterator[Any]:
    plain = _strip(kind)
    if get_origin(plain) in (Union, UnionType):
        for arm in get_args(plain):
            yield from _arms(arm)
    else:
        yield plain


def _struct_of(kind: Any) -> type[Any] | None:
    return next((arm for arm in _arms(kind) if isinstance(arm, type) and issubclass(arm, msgspec.Struct)), None)


def _scalar_of(kind: Any) -> type[Any] | None:
    """The arm that a single value is, where there is a struct beside it."""
    return next((arm for arm in _arms(kind) if isinstance(arm, type) and issubclass(arm, str | int | float)), None)


def _accepts_scalar(kind: Any) -> bool:
    return _scalar_of(kind) is not None


def _description(kind: Any) -> str:
    for part in (kind, *(get_args(kind) if get_origin(kind) in (Union, UnionType) else ())):
        for meta in getattr(part, "__metadata__", ()):
            if isinstance(meta, msgspec.Meta) and meta.description:
                return meta.description
    struct = _struct_of(kind)
    if struct is not None:
        return "keys and values: " + ", ".join(entry.encode_name for entry in msgspec.structs.fields(struct))
    return "another type"


def _did_you_mean(word: str, known: dict[str, Any]) -> str:
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f": did you mean {close[0]}?" if close else f": known are {', '.join(known)}"


def shorten(text: str, limit: int = 60) -> str:
    """Text from a file or a client, printable and short enough for one log line."""
    clean = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[: limit + 1])
    return clean if len(clean) <= limit else clean[: limit - 3] + "..."


def show(node: Node) -> str:
    """What stands in the file, in words."""
    value = node.value
    if node.is_mapping:
        return "got keys and values"
    if isinstance(value, list):
        return "got a list"
    if value is None:
        return "got nothing"
    if isinstance(value, bool):
        return f"got {str(value).lower()}"
    return f'got "{shorten(value)}"' if isinstance(value, str) else f"got {shorten(repr(value))}"
