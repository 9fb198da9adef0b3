# SPDX-License-Identifier: Apache-2.0
"""Builds libreef the way a C user gets it, and the peer that plays the daemon, once for all tests here."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from libreef import Client
from tests import ROOT

from .installed import WARNINGS, Installed, sh
from .peer import Peer


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """cmake, build and `cmake --install --component c`; flags from pkg-config."""
    build = tmp_path_factory.mktemp("cmake")
    prefix = tmp_path_factory.mktemp("prefix")
    sh("cmake", "-S", ROOT, "-B", build, "-DREEF_WERROR=ON")
    sh("cmake", "--build", build, "--target", "reef", "-j2")
    sh("cmake", "--install", build, "--component", "c", "--prefix", prefix)
    pkgconfig = next(prefix.rglob("pkgconfig"))
    flags = sh("pkg-config", "--cflags", "--libs", "reef", PKG_CONFIG_PATH=str(pkgconfig)).split()
    return Installed(prefix, flags, {"LD_LIBRARY_PATH": str(pkgconfig.parent)})


@pytest.fixture(scope="session")
def peer_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("peer") / "peer"
    sh("gcc", "-std=c11", *WARNINGS, f"-I{ROOT}/libreef/include", ROOT / "tests/libreef/peer.c", "-o", program)
    return program


@pytest.fixture
def peer(peer_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    one = Peer(peer_program, tmp_path_factory.mktemp("p"))
    yield one
    one.kill()


@pytest.fixture
def short_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A socket's path has at most 107 bytes."""
    directory = tmp_path_factory.mktemp("d")
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def compile_c(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compiles one program against the installed library, once for each set of flags."""
    made: dict[tuple[str, ...], Path] = {}
    directory = tmp_path_factory.mktemp("programs")

    def compile_one(source: Path, compiler: str = "gcc", standard: str = "gnu11", *more: str) -> Path:
        key = (str(source), compiler, standard, *more)
        if key not in made:
            program = directory / f"{len(made)}-{source.stem}"
            sh(compiler, f"-std={standard}", *WARNINGS, source, "-o", program, *more, *installed.flags)
            made[key] = program
        return made[key]

    return compile_one


@pytest.fixture(params=[0.0, 0.001], ids=["wait", "spin"])
def connect(request: pytest.FixtureRequest, peer: Peer) -> Iterator[Callable[..., Client]]:
    """Opens clients of a peer with these options, in both ways of waiting."""
    clients: list[Client] = []

    def connect_to(*options: str, **settings: object) -> Client:
        peer.start(*options, *(["--spin"] if request.param else []))
        clients.append(Client("test", socket=peer.socket, spin=request.param, **settings))  # type: ignore[arg-type]
        return clients[-1]

    yield connect_to
    for client in clients:
        client.close()


@pytest.fixture
def waiting(peer: Peer) -> Iterator[Callable[..., Client]]:
    """The same without spinning, where that could make no difference."""
    clients: list[Client] = []

    def connect_to(*options: str, **settings: object) -> Client:
        peer.start(*options)
        clients.append(Client("test", socket=peer.socket, **settings))  # type: ignore[arg-type]
        return clients[-1]

    yield connect_to
    for client in clients:
        client.close()
