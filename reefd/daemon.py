# SPDX-License-Identifier: Apache-2.0
"""The daemon: start, the events of its life, and the three ways to end (stop, restart, a device that is stuck)."""

from __future__ import annotations

import contextlib
import errno
import os
import resource as limits
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from reefd import __version__, config, disposal, manifest, wire
from reefd._engine import Engine, EngineError, Event, keep_memory
from reefd.activation import ActivationError, inherited
from reefd.config import Config
from reefd.control import Control, ControlError, Later
from reefd.devices import found_device
from reefd.disposal import Arrival, Undertaker
from reefd.instance import InstanceError, lock_instance, lock_runtime_dir
from reefd.listener import Connection, Listener, identify, take_descriptor, take_hello
from reefd.log import Log
from reefd.loop import Loop
from reefd.notify import notify, patience, watchdog_interval
from reefd.regions import Identity
from reefd.reload import Reloader, ReloadRefused
from reefd.resources import Store
from reefd.sessions import Session, Sessions
from reefd.status import Reporter
from reefd.tasks import Tasks
from reefd.watchdog import Watchdog
from reefd.wire import Hello, Refusal
from reefd.yamlfile import FileError

EXIT_FAILED = 1
EXIT_STUCK = 70  # EX_SOFTWARE: the device does not answer; the next daemon adopts the sessions
_LOAD_SECONDS = 600.0  # systemd is asked for so much patience while models are loaded


def run(settings: Config) -> int:
    """Runs the daemon until it is told to end. Returns the exit code."""
    log = Log(settings.log_level)
    if not keep_memory():
        log.info("start", "this kernel cannot keep the memory of a process: clients that poll see its death later")
    with contextlib.ExitStack() as cleanup:
        try:
            config.prepare_runtime_dir(settings)
            cleanup.callback(lock_runtime_dir(Path(settings.runtime_dir)).release)
            cleanup.callback(lock_instance(settings.instance).release)
            return Daemon(settings, log).run()
        except (FileError, InstanceError, ActivationError, EngineError, OSError) as error:
            log.error("start", str(error))
            return EXIT_FAILED


class Daemon:
    """One per instance. Everything here runs on the main thread; the engine has threads of its own."""

    def __init__(self, settings: Config, log: Log) -> None:
        self._settings = settings
        self._log = log
        self._inherited = inherited(socket.SOCK_SEQPACKET)
        self._loop = Loop(self._on_error)
        self._undertaker = Undertaker()
        self._engine = Engine(
            device=found_device(settings.device),
            workers=settings.workers,
            policy=settings.policy,
            max_sessions=settings.max_sessions,
            realtime=settings.realtime,
            stuck_ns=int(settings.device_timeout),
        )
        self._store = Store(self._engine, map(Path, settings.resource_dirs))
        self._tasks = Tasks(self._engine, self._store, log)
        self._sessions = Sessions(self._engine, self._tasks, log, self._undertaker, settings)
        self._reporter = Reporter(settings, self._engine, self._tasks, self._sessions)
        self._reloader = Reloader(
            settings, log, self._loop, self._tasks, self._sessions, self._detach, self._reporter.line
        )
        self._listener: Listener | None = None
        self._control: Control | None = None
        self._watchdog: Watchdog | None = None
        self._keep = False

    # ---------------------------------------------------------------- start

    def run(self) -> int:
        """Loads, adopts, serves, stops."""
        _raise_descriptor_limit()
        for number, call in (
            (signal.SIGTERM, self._stop),
            (signal.SIGINT, self._stop),
            (signal.SIGUSR2, self._restart),
            (signal.SIGHUP, self._reload),
        ):
            self._loop.on_signal(number, call)
        if not self._load_tasks():
            return EXIT_FAILED
        self._engine.start()
        self._engine.set_spinning(self._settings.spinning)
        self._loop.watch(self._engine.event_fd, self._on_engine)
        adopted, removed = self._sessions.adopt()
        if adopted or removed:
            self._log.info("adopted", f"{adopted} sessions taken over from the last daemon, {removed} removed")
        if adopted:
            self._loop.after(self._settings.reclaim_timeout / 1e9, self._drop_unclaimed)
        verbs = {"status": self._reporter.status, "reload": self._reload_for_reefctl}
        self._control = Control(self._loop, self._settings.control_socket, verbs)
        self._listener = Listener(
            self._loop, self._log, self._undertaker, self._settings.socket, self._sessions.epoch, self._on_hello,
            self._inherited,
        )  # fmt: skip
        self._reporter.listener = self._listener
        device = self._engine.device
        self._log.info(
            "ready",
            f"reefd {__version__}, {len(self._tasks)} tasks on {device['name']} ({device['detail']})",
            instance=self._settings.instance,
            socket=self._settings.socket,
        )
        notify(READY=1, STATUS=self._reporter.line())
        self._watchdog = Watchdog(self._engine, self._loop, watchdog_interval())
        try:
            self._loop.run()
        finally:
            self._end()
        return 0

    def _load_tasks(self) -> bool:
        """False: nothing could be loaded, or something could not and the configuration is strict."""
        try:
            paths = manifest.files_of(Path(self._settings.manifest_dir))
        except OSError as error:
            words = f"{self._settings.manifest_dir}: manifests cannot be listed: {error.strerror}"
            self._log.error("manifests", f"{words}; make it, or name another (--manifest-dir)")
            return False
        good, problems, warnings = manifest.load_files(paths)
        for warning in warnings:
            self._log.warning("manifest", str(warning))
        for problem in problems:
            self._log.error("manifest-refused", str(problem))
        with patience(_LOAD_SECONDS):
            for number, (path, entry) in enumerate(good.items()):
                notify(STATUS=f"loading {entry.task} ({number + 1} of {len(good)})")
                self._tasks.add(path, entry)
        if not paths:
            self._log.warning("manifests", f"{self._settings.manifest_dir} has no *.yaml: nothing can be served")
        bad = bool(problems or self._tasks.refused)
        if bad and self._settings.strict:
            self._log.error("start", "strict: not started, because of the problems above")
            return False
        return not bad or len(self._tasks) > 0

    # ---------------------------------------------------------------- clients

    def _on_hello(self, connection: Connection, hello: Hello) -> None:
        if hello.request == wire.RECLAIM:
            self._claim(connection, hello)
            return
        take_hello(connection)
        if hello.request == wire.PROBE:
            connection.answer(wire.welcome(daemon_epoch=self._sessions.epoch))
            self._undertaker.close(connection.socket)
            return
        session, read_only, doorbell = self._sessions.open(hello.task, connection.peer, connection.socket)
        self._hand_over(connection, session, read_only, doorbell, "opened")

    def _claim(self, connection: Connection, hello: Hello) -> None:
        """Only a peer that may have the session gets as far as having its descriptor looked at."""
        session = self._sessions.reclaimable(hello.session_id, connection.peer)
        descriptor = take_descriptor(connection)
        if descriptor is None:
            raise Refusal(errno.EPROTO, f"session {session.id}: a claim needs the descriptor of its region")
        session.claiming = True

        def identified(identity: Identity | None) -> None:
            session.claiming = False
            self._claimed(connection, session, identity)

        identify(self._loop, descriptor, identified)

    def _claimed(self, connection: Connection, session: Session, identity: Identity | None) -> None:
        try:
            read_only, doorbell = self._sessions.reclaim(session, connection.peer, identity, connection.socket)
        except Refusal as refusal:
            if self._listener is not None:
                self._listener.refuse(connection, refusal)
            return
        self._hand_over(connection, session, read_only, doorbell, "came back")

    def _hand_over(self, connection: Connection, session: Session, read_only: int, doorbell: int, what: str) -> None:
        message = wire.welcome(
            session_id=session.id,
            daemon_epoch=self._sessions.epoch,
            c_size=session.regions.c_size,
            d_size=session.regions.d_size,
        )
        told = connection.answer(message, (session.regions.c_fd, read_only, doorbell))
        os.close(read_only)
        os.close(doorbell)
        self._log_session("info", "session", what, session)
        if not told:
            self._detach(session, 0)
            return
        self._loop.watch(connection.socket, lambda: self._on_client(session))
        self._report()

    def _on_client(self, session: Session) -> None:
        """A session's socket is readable: it was hung up, or the client says something where it has nothing to say."""
        if session.socket is None:
            return
        arrival = disposal.look(session.socket, 1).arrival
        if arrival is Arrival.NOTHING:
            return
        code = 0
        if arrival is not Arrival.HANG_UP:
            code = -errno.EPROTO
            self._log_session("warning", "dropped", "the client wrote to the session socket", session)
        self._detach(session, code)

    def _detach(self, session: Session, code: int) -> None:
        if session.socket is not None:
            self._loop.forget(session.socket)
        self._sessions.detach(session, code)

    def _drop_unclaimed(self) -> None:
        for session in list(self._sessions):
            if session.adopted and session.socket is None and not session.leaving:
                words = f"nobody came back for it within {self._settings.reclaim_timeout / 1e9:g} s"
                self._log_session("warning", "dropped", words, session)
                self._detach(session, -errno.ESHUTDOWN)

    # ---------------------------------------------------------------- engine

    def _on_engine(self) -> None:
        for event in self._engine.poll_events():
            self._on_event(event)

    def _on_event(self, event: Event) -> None:
        if event.kind == "detached":
            session = self._sessions.detached(event)
            if session is not None:
                self._log_session("info", "session", "ended", session)
                self._tasks.sweep()
                self._report()
            return
        session = self._sessions.get(event.session)
        if event.kind == "device_stuck":
            words = f"{event.text}; ending, the next daemon takes the sessions over"
            if session is not None:
                self._log_session("error", "device-stuck", words, session)
            else:
                self._log.error("device-stuck", words)
            notify(STATUS="the device is stuck", STOPPING=1)
            # No orderly way out: whatever waits for the device would wait for ever.
            sys.stderr.flush()
            os._exit(EXIT_STUCK)
        if event.kind == "bounds":
            task = next((task.name for task in self._tasks if task.number == event.task), None)
            figures = {"latency_ns": event.values[1], "bound_ns": event.values[2]} if task else {}
            (self._log.warning if task else self._log.info)("bounds", event.text, task=task, **figures)
            self._reporter.count(event.kind)
            return
        level = "info" if event.kind == "adopted" else "warning"
        code = errno.errorcode.get(-event.code) if event.code else None
        if session is None:
            self._log.info(event.kind, event.text, session=event.session or None, code=code)
        else:
            self._log_session(level, event.kind, event.text, session, code=code)
            self._reporter.count(event.kind)

    # ---------------------------------------------------------------- end

    def _stop(self) -> None:
        self._log.info("stop", "asked to stop")
        self._loop.stop()

    def _restart(self) -> None:
        self._log.info("stop", "asked to stop for a restart: sessions are left to the next daemon")
        self._keep = True
        self._loop.stop()

    def _reload(self) -> None:
        self._log.info("reload", "asked by SIGHUP to read the manifests again")
        self._reloader.start(lambda _: None)

    def _reload_for_reefctl(self) -> Later:
        answer = Later()

        def told(outcome: dict[str, Any] | ReloadRefused) -> None:
            answer.finish(ControlError(str(outcome)) if isinstance(outcome, ReloadRefused) else outcome)

        self._reloader.start(told)
        return answer

    def _end(self) -> None:
        """Nothing new is taken; requests in flight have the grace time; then nothing is left, or all is kept."""
        notify(STOPPING=1, STATUS="leaving the sessions to the next daemon" if self._keep else "ending the sessions")
        if self._watchdog is not None:
            self._watchdog.stop()
        if self._listener is not None:
            self._listener.close()
        if self._control is not None:
            self._control.close()
        grace = self._settings.restart_grace if self._keep else self._settings.grace
        counts = self._engine.stop(grace_ns=int(grace), keep_sessions=self._keep)
        self._on_engine()
        self._sessions.close(keep=self._keep)
        self._loop.close()
        summary = ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "none in flight"
        self._log.info("stopped", f"requests: {summary}")

    # ---------------------------------------------------------------- words

    def _log_session(self, level: str, event: str, words: str, session: Session, **fields: object) -> None:
        self._log.client(
            level, event, words, session=session.id, task=session.task.name, uid=session.uid, pid=session.pid, **fields
        )

    def _report(self) -> None:
        notify(STATUS=self._reporter.line())

    def _on_error(self, error: BaseException) -> None:
        """A callback failed in a way that nobody foresaw: the others go on."""
        places = " < ".join(
            f"{Path(frame.filename).name}:{frame.lineno}"
            for frame in reversed(traceback.extract_tb(error.__traceback__))
        )
        self._log.error("internal", f"{type(error).__name__}: {error} ({places})")


def _raise_descriptor_limit() -> None:
    """A session has a handful of descriptors: the soft limit of 1,024 is for programs that use select()."""
    _, hard = limits.getrlimit(limits.RLIMIT_NOFILE)
    limits.setrlimit(limits.RLIMIT_NOFILE, (hard, hard))
