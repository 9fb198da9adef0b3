# SPDX-License-Identifier: Apache-2.0
"""Sessions: from a checked hello to regions in the engine, and back to nothing. Over a restart they are adopted.

A session lives as long as its socket. What the next daemon must know of it (whose it is, which files its regions are)
lies in a small file beside the sockets, written before the client learns that the session exists.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import posix_ipc

from reefd import regions
from reefd._engine import Engine, EngineError, Event
from reefd.admission import Peer, admit
from reefd.config import Config
from reefd.disposal import Undertaker
from reefd.log import Log
from reefd.regions import Identity, Regions
from reefd.tasks import Task, Tasks
from reefd.wire import Refusal

_MAX_RECORD = 4096
_MAX_PLANTED = 4  # names in a row
_MAX_NUMBER = 1 << 62  # of a session; counting up from there for ever still fits a name


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of a session for the next daemon."""

    session: int
    task: str
    uid: int
    pid: int
    c_device: int
    c_inode: int
    d_device: int
    d_inode: int

    @property
    def identities(self) -> tuple[Identity, Identity]:
        return Identity(self.c_device, self.c_inode), Identity(self.d_device, self.d_inode)


@dataclass(slots=True, eq=False)
class Session:
    """One client on one task. `socket` is None from adoption until the client came back, and after it hung up."""

    id: int
    task: Task
    uid: int
    pid: int
    regions: Regions
    socket: socket.socket | None = None
    since: float = field(default_factory=time.monotonic)
    adopted: bool = False
    claiming: bool = False  # the descriptor that a client offered is being looked at
    leaving: bool = False


class Sessions:
    """All sessions, by id. Methods raise Refusal for the client's ear, nothing else."""

    def __init__(self, engine: Engine, tasks: Tasks, log: Log, undertaker: Undertaker, config: Config) -> None:
        self._engine = engine
        self._tasks = tasks
        self._log = log
        self._undertaker = undertaker
        self._instance = config.instance
        self._state_dir = config.state_dir
        self._limit = config.max_sessions
        self._staging = False  # it was said that the device copies tensors
        self._by_id: dict[int, Session] = {}
        self._next = 1
        # Another number than any other daemon's: clients compare it to see that theirs is gone.
        self.epoch = int.from_bytes(os.urandom(8), "little") | 1

    def __iter__(self) -> Iterator[Session]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, session_id: int) -> Session | None:
        return self._by_id.get(session_id)

    # ---------------------------------------------------------------- coming

    def open(self, task_name: str, peer: Peer, connection: socket.socket) -> tuple[Session, int, int]:
        """A new session: (session, D for the client, doorbell). The two descriptors are the caller's to close."""
        task = self._admitted(task_name, peer)
        if len(task.sessions) >= task.manifest.max_sessions:
            words = f"task {task.name} has {len(task.sessions)} sessions, as many as its manifest allows (max_sessions)"
            raise Refusal(errno.EMFILE, words)
        if len(self._by_id) >= self._limit:
            raise Refusal(errno.EMFILE, f"the daemon has {self._limit} sessions, as many as max_sessions allows")
        number, memory = self._create(task)
        session = Session(number, task, peer.uid, peer.pid, memory, connection)
        with contextlib.ExitStack() as undo:
            undo.callback(self._forget_files, session)
            try:
                doorbell = _doorbell()
                undo.callback(os.close, doorbell)
                read_only = memory.open_read_only()
                undo.callback(os.close, read_only)
                self._write_record(session, peer.pid)
                refused = self._engine.attach(
                    task=task.number, session_id=number, daemon_epoch=self.epoch, c_fd=memory.c_fd, d_fd=memory.d_fd,
                    doorbell_fd=doorbell, socket_fd=connection.fileno(),
                )  # fmt: skip
                self._tell_of_staging(task.name, refused)
            except EngineError as error:
                raise Refusal(error.code, f"task {task.name}: {error}") from error
            except OSError as error:
                raise _no_resources(task.name, error) from error
            undo.pop_all()
        self._add(session)
        return session, read_only, doorbell

    def reclaimable(self, session_id: int, peer: Peer) -> Session:
        """The adopted session that this peer may claim, before anything that it sent along is looked at."""
        session = self._by_id.get(session_id)
        # One that was opened here and carries the number of an older session is not what the client means.
        if session is None or session.leaving or not session.adopted:
            raise Refusal(errno.ESTALE, f"session {session_id} did not outlive the daemon: close it and open another")
        if session.uid != peer.uid:
            raise Refusal(errno.EACCES, f"session {session_id} belongs to another user")
        admit(session.task.manifest, peer)
        if session.socket is not None or session.claiming:
            raise Refusal(errno.EBUSY, f"session {session_id} is in use")
        return session

    def reclaim(
        self, session: Session, peer: Peer, offered: Identity | None, connection: socket.socket
    ) -> tuple[int, int]:
        """Gives an adopted session back to its client, who proves by C's descriptor that it is. (D, doorbell)."""
        if self.reclaimable(session.id, peer) is not session or offered != session.regions.identities[0]:
            raise Refusal(errno.ESTALE, f"session {session.id}: the descriptor is not that of its region")
        with contextlib.ExitStack() as undo:
            try:
                doorbell = _doorbell()
                undo.callback(os.close, doorbell)
                read_only = session.regions.open_read_only()
                undo.callback(os.close, read_only)
                self._write_record(session, peer.pid)
                self._engine.set_wakeup(
                    session_id=session.id, doorbell_fd=doorbell, socket_fd=connection.fileno()
                )  # fmt: skip
            except (EngineError, OSError) as error:
                raise Refusal(errno.EAGAIN, f"session {session.id} cannot be handed over: {error}") from error
            undo.pop_all()
        session.socket, session.pid = connection, peer.pid
        return read_only, doorbell

    def _admitted(self, task_name: str, peer: Peer) -> Task:
        task = self._tasks.get(task_name)
        if task is None and task_name in self._tasks.refused:
            raise Refusal(errno.ENOENT, f"task {task_name} could not be loaded: the daemon's log says why")
        if task is None:
            known = ", ".join(sorted(other.name for other in self._tasks)) or "none"
            raise Refusal(errno.ENOENT, f"there is no task {task_name!r} here; there are: {known}")
        admit(task.manifest, peer)
        return task

    def _create(self, task: Task) -> tuple[int, Regions]:
        """Under the next number; where somebody planted an object under its name, under one that nobody can guess."""
        for _ in range(_MAX_PLANTED):
            number = self._next
            self._next += 1
            name = regions.object_name(self._instance, task.name, number)
            try:
                return number, regions.create(name, task.c_size, task.d_size)
            except FileExistsError as error:
                self._log.warning("planted", str(error), task=task.name)
                self._next = 1 + int.from_bytes(os.urandom(8), "little") % _MAX_NUMBER
            except (OSError, posix_ipc.Error) as error:
                words = f"{task.name}: {task.c_size + task.d_size} bytes of shared memory"
                raise _no_resources(words, error) from error
        raise Refusal(errno.EAGAIN, f"task {task.name}: somebody plants objects under the names of regions; try again")

    def _add(self, session: Session) -> None:
        self._by_id[session.id] = session
        session.task.sessions.add(session.id)

    # ---------------------------------------------------------------- over a restart

    def adopt(self) -> tuple[int, int]:
        """Takes over what a predecessor of this instance left. (adopted, removed)."""
        adopted = removed = 0
        found, strangers = regions.left_behind(self._instance)
        for name in strangers:
            self._log.warning("stranger", f"/dev/shm/{name} has this instance's prefix and is none of its regions")
        for entry in found:
            if entry.session <= _MAX_NUMBER:  # else somebody planted it, to have numbers end
                self._next = max(self._next, entry.session + 1)
            try:
                self._adopt(entry)
                adopted += 1
            except regions.Unusable as reason:
                removed += 1
                gone = regions.remove_ours(entry.name)
                what = "removed" if gone else "left alone, it is another user's"
                self._log.warning("not-adopted", f"{entry.name}: {reason}; {what}", session=entry.session)
        known = {str(session.id) for session in self}
        for path in self._state_dir.iterdir():
            if path.name not in known:
                path.unlink(missing_ok=True)
        return adopted, removed

    def _adopt(self, found: regions.Found) -> None:
        record = self._read_record(found.session)
        task = self._tasks.get(found.task)
        if record.task != found.task or task is None:
            raise regions.Unusable(f"task {found.task} is not served")
        memory = regions.open_left_behind(found)
        try:
            if memory.identities != record.identities:
                raise regions.Unusable("it is not the file that was recorded")
            if memory.d_size != task.d_size:
                raise regions.Unusable("its size is not that of the task: the manifest or a model changed")
            refused = self._engine.attach(
                task=task.number, session_id=found.session, daemon_epoch=self.epoch, c_fd=memory.c_fd, d_fd=memory.d_fd,
                adopt=True,
            )  # fmt: skip
        except (EngineError, regions.Unusable) as error:
            memory.close()
            raise regions.Unusable(str(error)) from error
        self._tell_of_staging(task.name, refused)
        self._add(Session(found.session, task, record.uid, record.pid, memory, adopted=True))

    def _tell_of_staging(self, task: str, refused: str) -> None:
        """Once: what the driver refuses for one session it will refuse for the next."""
        if refused and not self._staging:
            self._staging = True
            words = "tensors are copied through page-locked memory of the daemon, here and wherever that happens again"
            self._log.warning("staged", f"{refused}: {words}", task=task)

    def _record_path(self, number: int) -> Path:
        return self._state_dir / str(number)

    def _write_record(self, session: Session, pid: int) -> None:
        c, d = session.regions.identities
        record = Record(
            session.id, session.task.name, session.uid, pid, c.device, c.inode, d.device, d.inode
        )  # fmt: skip
        path = self._record_path(session.id)
        written = path.with_suffix(".new")
        written.write_bytes(msgspec.json.encode(record))
        written.rename(path)

    def _read_record(self, number: int) -> Record:
        try:
            with self._record_path(number).open("rb") as file:
                record = msgspec.json.decode(file.read(_MAX_RECORD), type=Record)
        except (OSError, msgspec.MsgspecError) as error:
            raise regions.Unusable(f"nothing is known of its owner ({error})") from error
        if record.session != number:
            raise regions.Unusable("what is known of its owner is another session's")
        return record

    # ---------------------------------------------------------------- going

    def detach(self, session: Session, code: int) -> None:
        """The client is gone (0), or dropped (a negative errno that it sees). Ends with the engine's "detached"."""
        self._hang_up(session)
        if session.leaving:
            return
        session.leaving = True
        try:
            self._engine.detach(session_id=session.id, code=code)
        except EngineError as error:
            self._log.error("detach", str(error), session=session.id, task=session.task.name)
            self.forget(session)

    def detached(self, event: Event) -> Session | None:
        """The engine let go of a session: its names and its record go."""
        session = self._by_id.get(event.session)
        if session is not None:
            self.forget(session)
        return session

    def forget(self, session: Session) -> None:
        self._by_id.pop(session.id, None)
        session.task.sessions.discard(session.id)
        self._hang_up(session)
        self._forget_files(session)

    def _forget_files(self, session: Session) -> None:
        session.regions.close()
        regions.remove(session.regions.name)
        self._record_path(session.id).unlink(missing_ok=True)

    def close(self, *, keep: bool) -> None:
        """After the engine stopped: names and records go, or stay for the next daemon."""
        for session in list(self):
            if not keep or session.leaving:
                self.forget(session)
            else:
                self._hang_up(session)
                session.regions.close()

    def _hang_up(self, session: Session) -> None:
        if session.socket is not None:
            self._undertaker.close(session.socket)
            session.socket = None


def _no_resources(what: str, error: Exception) -> Refusal:
    code = getattr(error, "errno", None)
    # posix_ipc says only in words that there are no descriptors, and everything else with a number.
    full = code in (errno.EMFILE, errno.ENFILE) or (isinstance(error, OSError) and code is None)
    advice = "raise LimitNOFILE=" if full else "see `df /dev/shm` and the limits of the service"
    return Refusal(errno.EMFILE if full else errno.ENOMEM, f"task {what}: {error}; {advice}")


def _doorbell() -> int:
    return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
