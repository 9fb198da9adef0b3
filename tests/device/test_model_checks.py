# SPDX-License-Identifier: Apache-2.0
"""Whatever a resource says wrong about its storages and kernels is refused when it is loaded, with the names in it."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest

from reefd import _engine

from .networks import Builder

ModelSpec = _engine.ModelSpec
ModelError = _engine.ModelError


def load(spec: _engine.ModelSpec) -> None:
    _engine.run_model(spec, [np.zeros(16, np.float32)], [np.zeros(16, np.float32)])


@pytest.mark.parametrize(
    ("add", "words"),
    [
        (lambda s: s.add_storage("x", "heap", "float32", [1]), "unknown storage kind 'heap'"),
        (lambda s: s.add_storage("x", "arena", "float33", [1]), "unknown element type 'float33'"),
        (lambda s: s.add_storage("x", "arena", "float32", [2, 0]), "dimension 0"),
        (lambda s: s.add_storage("x", "arena", "float32", [-1]), "dimension -1"),
        (lambda s: s.add_storage("x", "arena", "float32", [1] * 9), "rank 9"),
        (lambda s: s.add_storage("x", "arena", "float32", [2**31, 2**31, 2**31]), "larger than"),
        (lambda s: s.add_storage("x", "arena", "float32", [2**62, 4]), "larger than"),
        (lambda s: s.add_storage("x", "arena", "float32", [257]), "lie outside the arena of 1024"),
        (lambda s: s.add_storage("x", "arena", "float32", [1], offset=1024), "lie outside the arena"),
        (lambda s: s.add_storage("x", "arena", "float32", [16], offset=2**64 - 64), "lie outside the arena"),
        (lambda s: s.add_storage("x", "arena", "float32", [1], offset=4), "not a multiple of 64"),
        (lambda s: s.add_storage("x", "weight", "float32", [3]), "0 bytes of data"),
        (lambda s: s.add_storage("x", "weight", "float32", [3], data=bytes(8)), "8 bytes of data, its shape needs 12"),
        (lambda s: s.add_storage("x", "arena", "float32", [1], data=bytes(4)), "only weights have data"),
        (lambda s: s.add_storage("x" * 64, "input", "float32", [1]), "1 to 63 characters"),
        (lambda s: s.add_storage("x", "input", "float32", [1], offset=64), "only views and arena"),
        (lambda s: s.add_storage("x", "input", "float32", [1], base=9), "its base is storage 9 of 1"),
        (lambda s: s.add_storage("x", "input", "float32", [1], base=0), "of another kind"),
        (lambda s: s.add_storage("x", "arena", "float32", [17], base=0), "lie outside 'a'"),
        (lambda s: s.add_storage("x", "arena", "float32", [1], offset=2, base=0), "multiple of the element size"),
        (lambda s: s.add_kernel("k", "unary", [0, 1], ["read", "write"], {}), "argument 1 names storage 1 of 1"),
        (lambda s: s.add_kernel("k", "unary", [0], ["read", "write"], {}), "1 arguments but 2 directions"),
        (lambda s: s.add_kernel("k", "unary", [0], ["scribble"], {}), "unknown access 'scribble'"),
        (lambda s: s.add_kernel("k", "unary", [0], ["write"], {"alpha": {}}), "attribute 'alpha'"),
        (lambda s: s.set_inputs([0]), "storage 0 is no input"),
        (lambda s: s.set_outputs([7]), "storage 7 is no output"),
    ],
)
def test_wrong_number(add: Callable[[_engine.ModelSpec], object], words: str) -> None:
    spec = ModelSpec("m", 1024)
    spec.add_storage("a", "arena", "float32", [16])
    with pytest.raises(ModelError, match=words):
        add(spec)


@pytest.mark.parametrize("kind", ["input", "weight"])
def test_kernel_that_writes_a_constant(kind: str) -> None:
    spec = ModelSpec("m", 1024)
    data = np.zeros(16, np.float32) if kind == "weight" else None
    spec.add_storage("c", kind, "float32", [16], data=data)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="kernel 'k': writes 'c', which is an? " + kind):
        spec.add_kernel("k", "unary", [0], ["write"], {})


def test_names_of_models() -> None:
    for name in ("", "x" * 64):
        with pytest.raises(ModelError, match="1 to 63"):
            ModelSpec(name, 0)
    with pytest.raises(ModelError, match="arena"):
        ModelSpec("m", 2**63)


def test_every_input_and_output_is_listed_once() -> None:
    spec = ModelSpec("m", 0)
    spec.add_storage("a", "input", "float32", [4])
    spec.add_storage("b", "input", "float32", [4])
    with pytest.raises(ModelError, match="'b' is not listed"):
        spec.set_inputs([0])
    with pytest.raises(ModelError, match="'a' is listed twice"):
        spec.set_inputs([0, 1, 0])


def test_late_input_is_not_forgotten() -> None:
    build = Builder("m")
    build.kernel("unary", [build.input([16])], build.output([16]), activation="relu")
    spec = build.finish()
    spec.add_storage("late", "input", "float32", [4])
    with pytest.raises(ModelError, match="an input is not listed"):
        load(spec)


def restorable(reads: tuple[int, int], writes: tuple[int, int], second: tuple[int, int] | None = None) -> None:
    """Loads a kernel that reads and writes float32 ranges (element offset, elements) of the arena."""
    spec = ModelSpec("m", 4096)
    x = spec.add_storage("in0", "input", "float32", [16])
    y = spec.add_storage("out0", "output", "float32", [16])
    everything = spec.add_storage("all", "arena", "float32", [1024])
    a = spec.add_storage("a", "arena", "float32", [reads[1]], offset=4 * reads[0])
    b = spec.add_storage("b", "arena", "float32", [writes[1]], offset=4 * writes[0])
    one = spec.add_storage("one", "input", "float32", [1], base=x)
    spec.add_kernel("fill", "binary", [one, one, everything], ["read", "read", "write"], {"function": "add"})
    args, access = [a, b], ["read", "write"]
    if second:
        args.append(spec.add_storage("c", "arena", "float32", [second[1]], offset=4 * second[0]))
        access.append("write")
    op = "topk" if second else "unary"  # topk writes two
    spec.add_kernel("suspect", op, args, access, {"activation": "relu"})  # type: ignore[arg-type]
    spec.add_kernel("last", "unary", [x, y], ["read", "write"], {"activation": "relu"})
    spec.set_inputs([x])
    spec.set_outputs([y])
    load(spec)


@pytest.mark.parametrize(
    ("reads", "writes", "second", "words"),
    [
        ((0, 64), (0, 32), None, "writes 'b', which overlaps 'a' that it reads"),
        ((0, 64), (48, 64), None, "writes 'b', which overlaps 'a' that it reads"),
        ((16, 1), (0, 64), None, "writes 'b', which overlaps 'a' that it reads"),
        ((0, 64), (64, 64), (112, 64), "writes 'b', which overlaps 'c' that it writes too"),
    ],
)
def test_no_right_answer(
    reads: tuple[int, int], writes: tuple[int, int], second: tuple[int, int] | None, words: str
) -> None:
    with pytest.raises(ModelError, match=r"kernel 'suspect' \((unary|topk)\) " + words):
        restorable(reads, writes, second)


def test_neighbours_are_restorable() -> None:
    restorable((0, 64), (64, 64))


def test_exactly_in_place_is_accepted() -> None:
    restorable((0, 64), (0, 64))


@pytest.mark.parametrize(
    ("access", "words"),
    [
        (["read", "read_write"], "says that it reads and writes 'out0'; the operator writes it"),
        (["read", "read"], "says that it reads 'out0'; the operator writes it"),
    ],
)
def test_directions_are_the_operators(access: list[Literal["read", "write", "read_write"]], words: str) -> None:
    build = Builder("m")
    x, y = build.input([16]), build.output([16])
    build.spec.add_kernel("update", "unary", [x, y], access, {"activation": "relu"})
    with pytest.raises(ModelError, match=r"kernel 'update' \(unary\): the resource " + words):
        load(build.finish())


def test_view_counts_as_its_base() -> None:
    build = Builder("m")
    x, y = build.input([16]), build.output([16])
    build.kernel("unary", [x], y, activation="relu")
    part = build.spec.add_storage("part", "output", "float32", [8], offset=16, base=y)
    other = build.spec.add_storage("other", "output", "float32", [8], offset=32, base=y)
    build.kernel("unary", [part], other, activation="relu")
    with pytest.raises(ModelError, match="writes 'other', which overlaps 'part'"):
        load(build.finish())


def test_reading_what_nobody_wrote() -> None:
    build = Builder("m")
    build.input([16])
    stale = build.arena([16])
    build.kernel("unary", [stale], build.output([16]), activation="relu")
    with pytest.raises(ModelError, match="reads 't0' before it was completely written"):
        load(build.finish())


def test_output_that_is_only_partly_written() -> None:
    build = Builder("m")
    x, y = build.input([16]), build.output([16])
    build.kernel(
        "unary",
        [build.spec.add_storage("h", "input", "float32", [12], base=x)],
        build.spec.add_storage("p", "output", "float32", [12], base=y),
        activation="relu",
    )
    with pytest.raises(ModelError, match="no kernel writes output 'out0'"):
        load(build.finish())


@pytest.mark.parametrize(
    ("op", "attributes", "words"),
    [
        ("warp", {}, "no operator 'warp'"),
        ("unary", {"activation": "wobble"}, "unknown activation 'wobble'"),
        ("unary", {"activation": 3}, "'activation' is not a string"),
        ("unary", {"activation": "relu", "aplha": 1}, "attribute 'aplha' has no meaning here"),
        ("unary", {"activation": "clip", "alpha": "low"}, "'alpha' is not a number"),
        ("binary", {"function": "add"}, "has 2 arguments, expected 3"),
    ],
)
def test_operator_refuses(op: str, attributes: dict[str, object], words: str) -> None:
    build = Builder("m")
    build.kernel(op, [build.input([16])], build.output([16]), **attributes)
    with pytest.raises(ModelError, match="kernel 'k0'.*" + words):
        load(build.finish())


def test_wrong_buffers() -> None:
    build = Builder("m")
    build.kernel("unary", [build.input([16])], build.output([16]), activation="relu")
    spec = build.finish()
    good = np.zeros(16, np.float32)
    with pytest.raises(ModelError, match="'in0' has 64 bytes, its buffer 60"):
        _engine.run_model(spec, [np.zeros(15, np.float32)], [good])
    with pytest.raises(ModelError, match="2 buffers for 1 tensors"):
        _engine.run_model(spec, [good, good], [good])
    with pytest.raises(TypeError, match="'out0' is no contiguous writable buffer"):
        _engine.run_model(spec, [good], [bytes(64)])
    with pytest.raises(TypeError, match="'in0' is no contiguous buffer"):
        _engine.run_model(spec, [np.zeros(32, np.float32)[::2]], [good])
