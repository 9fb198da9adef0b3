"""The engine's module as the control plane sees it (nanobind, reefd/engine/module.cpp)."""

from collections.abc import Sequence
from typing import Any, Literal

from numpy.typing import NDArray
from typing_extensions import Buffer

Memory = Buffer | NDArray[Any]  # before Python 3.12 the type checker does not know that an array is a buffer

class ModelError(Exception):
    """A resource that cannot be loaded: names the kernel or storage and says what is wrong."""

class EngineError(Exception):
    """A command the engine refused. `code` is a negative errno."""

    code: int

class ModelSpec:
    """A model as read from a resource, before a device loads it. Indices are those of model.json."""

    def __init__(self, name: str, arena_bytes: int) -> None: ...
    def add_storage(
        self,
        name: str,
        kind: Literal["input", "output", "arena", "weight"],
        dtype: str,
        shape: Sequence[int],
        offset: int = 0,  # arena: from its start; a view: from the start of its base; others: 0
        data: Memory | None = None,  # weight: its bytes, copied
        base: int = -1,  # a view: the storage whose bytes these are, seen in another shape
    ) -> int:
        """A view lies within a storage that is no view itself, has its kind, and occupies no memory: a reshaped
        tensor, or a part of an output that a kernel writes in place. dtype is NumPy's name ("float32"). Returns the
        storage's index."""
    def add_kernel(
        self,
        name: str,
        op: str,
        args: Sequence[int],
        access: Sequence[Literal["read", "write", "read_write"]],
        attributes: dict[str, Any],
    ) -> int: ...
    def set_inputs(self, storages: Sequence[int]) -> None: ...
    def set_outputs(self, storages: Sequence[int]) -> None: ...
    def set_program(self, program: GpuProgram) -> None:
        """The model as GPU kernels; a CPU device ignores it, a GPU device refuses a model without one."""

def operator_arguments(
    op: str, attributes: dict[str, Any], count: int
) -> list[tuple[str, Literal["read", "write", "read_write"], bool]] | None:
    """What the operators' table (kernels/cpu/operators.inc) says of the `count` arguments of an instance: name, access,
    and whether element i is read only by the block that writes element i of the result, before it does. None: no such
    operator. ModelError: it has no such number of arguments."""

def keep_memory() -> bool:
    """Makes a process that shares this one's memory and ends after it, so that the death of this one closes descriptors
    at once and not when its memory is taken down. Once, by the main thread. False: the kernel cannot."""

def instruction_sets() -> list[str]:
    """The CPU's operator tables that this machine can run, the best last. `REEF_CPU_ISA` in the environment chooses
    one."""

def run_model(
    spec: ModelSpec,
    inputs: Sequence[Memory],
    outputs: Sequence[Memory],
    *,
    workers: int = 0,
    isa: str = "",
) -> None:
    """Loads a model on a CPU device of its own and runs it once, plain. Buffers are contiguous, in the order of
    set_inputs and set_outputs; `workers` 0: one for each CPU that this process may use."""

class GpuProgram:
    """Code objects for one GPU target, constants, and the launches in order (reefd.gpu.program makes it)."""

    def __init__(self, target: str, modules: Sequence[bytes], constants: Memory, workspace_bytes: int) -> None: ...
    def add_launch(
        self,
        name: str,
        entry: str,  # of the plain form; the preemptible one has "_p" behind it
        module: int,
        blocks: int,
        threads: int,
        shared_bytes: int,
        units: int,  # of restoration: blocks, or clusters of them
        arguments: Sequence[tuple[str, int, int, int]],  # memory, storage, offset, bytes that the launch may touch
    ) -> None:
        """memory: "none", "storage" (offset from the arena, or from a tensor that is no view), "constant", "workspace",
        "binding", "outputs"."""

class LocalRequest:
    """A context of a model and the tensors of one request, for launching windows by hand."""

    def __init__(
        self,
        device: LocalDevice,
        model: Model,
        inputs: Sequence[Memory],
        outputs: Sequence[Memory],
        *,
        registered: bool = True,
    ) -> None: ...
    registered: bool  # the device reaches the tensors as they lie
    kernels_done: int
    def fetch(self) -> bool:
        """Best effort, ahead of the first window: has poll() bring the inputs. True: they are on the device."""
    def deliver(self) -> bool:
        """When the last window retired and every kernel is done: has poll() bring the outputs. True: they are there."""
    def drop(self) -> bool:
        """Brings no more of either. True: none is being read or written any more."""
    def clear(self) -> None: ...
    def copy_out(self) -> None:
        """From the request's memory into the output buffers."""

class LocalDevice:
    """A device without an engine: this process launches. For profiling and tests; one thread at a time."""

    def launch(
        self,
        queue: int,
        request: LocalRequest,
        first: int,
        last: int,
        epoch: int,
        preemptible: bool,
        finish_blocks: bool = False,
        split: int = 0,
    ) -> int:
        """Launches kernels [first, last) as one window; returns its mark. ValueError: the device has no such split."""
    def write_epoch(self, queue: int, epoch: int) -> None: ...
    def write_epochs(self, epochs: Sequence[tuple[int, int]]) -> None: ...  # (queue, epoch)
    def retired(self, queue: int) -> int: ...
    def repeat(
        self,
        queue: int,
        request: LocalRequest,
        rounds: int,
        epoch: int = 0,
        preemptible: bool = False,
        split: int = 0,
    ) -> tuple[list[int], list[int]]:
        """Runs the request `rounds` times, one after the other: nanoseconds until launch() returned, and until the
        window was seen to have retired."""
    def poll(self, hold: bool = False) -> None:
        """Begins the next pieces of what is fetched or delivered; with `hold` none of best-effort requests."""
    copying: bool  # a piece is on its way
    def vacate(self, queue: int, epoch: int, mark: int) -> tuple[int, int]:
        """Writes an epoch: nanoseconds until the write returned, and until `mark` was seen to have retired."""
    def wait(self, queue: int, mark: int, seconds: float = 60.0) -> bool:
        """Until the mark was retired. False: not within that time, or the device failed."""
    fault: str | None
    info: dict[str, Any]  # name, detail, compute_units, queues, queue_depth, split_granule, split_most, realtime
    def load(self, spec: ModelSpec) -> Model: ...
    def run(
        self,
        model: Model,
        inputs: Sequence[Memory],
        outputs: Sequence[Memory],
        *,
        preemptible: bool = False,
        interrupt_at: Sequence[int] = (),
        interrupts: int = 0,
        within_ns: int = 100_000,
        seed: int = 1,
        rounds: int = 1,
    ) -> dict[str, Any]:
        """Runs a model, `rounds` times in a row with the same inputs. Preemptible runs can be interrupted and are
        resumed: once after each kernel of `interrupt_at` (ascending) has begun, then `interrupts` times more, each at
        a random time below `within_ns` after the launch. Returns execute_ns (of the last round), each_ns (of
        every round), launches, preempted (interruptions that came before the end) and vacated_ns (the longest time
        until the last block had left), over all rounds."""
    def statistics(self) -> list[dict[str, int]]:
        """Of each worker since the start: real_time_ns, best_effort_ns, blocks, abandoned."""

class CpuDevice(LocalDevice):
    def __init__(
        self,
        *,
        workers: int = 0,
        isa: str = "",
        realtime: bool = False,
        spin_ns: int = 20_000,
        shield_after: int = 8,
        exclusive: bool = True,
    ) -> None: ...
    def kernel_times(
        self, model: Model, inputs: Sequence[Memory], outputs: Sequence[Memory], *, rounds: int
    ) -> list[list[int]]:
        """For each round the time of each kernel instance on the whole device, plain: nanoseconds from the end of the
        one before to its own."""
    def block_times(
        self, model: Model, inputs: Sequence[Memory], outputs: Sequence[Memory], *, rounds: int
    ) -> list[tuple[int, int, int]]:
        """For each kernel instance the longest of its blocks, the longest time between two check points, and the
        longest piece of a unit's snapshot (0: restorable), in nanoseconds; each counts with the least of `rounds` runs.
        As many threads as the device has workers run at once; the caches are emptied before each instance."""

def vacate(
    device: CpuDevice,
    best_effort: Model,
    inputs: Sequence[Memory],
    outputs: Sequence[Memory],
    real_time: Model,
    real_time_inputs: Sequence[Memory],
    real_time_outputs: Sequence[Memory],
    *,
    policy: str,
    rounds: int,
    within_ns: int,
    seed: int = 1,
) -> dict[str, list[int]]:
    """Keeps the workers busy with one model and, `rounds` times, lets the other come as real-time work at a random time
    below `within_ns` after a launch. Returns of each round latency_ns, until the last worker had left the best-effort
    block that it was in (`sequential`: until the request was over), own_ns, until the caller had launched the real-time
    work and went to sleep, timer_ns, how late the caller's own timer was, and redone, the most blocks that one worker
    abandoned. `streams` needs a device with exclusive=False."""

def notice(*, threads: int, rounds: int, within_ns: int, memory: int = 0, seed: int = 1) -> dict[str, list[int]]:
    """The control of vacate(): bare threads in place of its workers, each reading `memory` bytes over and over, and a
    word that the caller writes at random times less than `within_ns` apart. Returns of each round latency_ns, until the
    last thread had noticed, and timer_ns, how late the caller's own timer was."""

class GpuDevice(LocalDevice):
    """EngineError with -ENODEV: no driver, or no such device."""

    def __init__(
        self, kind: Literal["cuda", "hip"], *, ordinal: int = 0, queues: int = 4, shield_after: int = 8
    ) -> None: ...

class Model:
    """A model loaded on the engine's device. Freed when nothing refers to it any more."""

    name: str
    kernels: list[str]
    blocks: list[int]
    weight_bytes: int
    arena_bytes: int  # of an execution context
    snapshot_bytes: int  # of an execution context: what instances that are not restorable save before they begin

class Region:
    """Sizes of a session's two regions for a task."""

    c_size: int
    d_size: int

class Event:
    """Something that happened on the engine thread and belongs in the log or a counter."""

    kind: str  # "quarantine", "detached", "adopted", "rejected", "flooding", "bounds", "device_stuck"
    time_ns: int
    task: int  # 0: of no task
    session: int  # its session_id; 0: of no session
    code: int  # negative errno or 0; "detached": the one given to detach()
    values: tuple[int, int, int, int]
    text: str  # what happened, for the log

class Profile:
    """What was measured of a model on the engine's device."""

    def __init__(self, *, kernel_ns: Sequence[int] = (), padding: Sequence[tuple[int, int]] = ()) -> None:
        """kernel_ns: of each kernel alone on the whole device; empty: not measured, then times are learned while it
        runs. padding: (last kernel + 1, compute units for best-effort work beside it) of each segment of a real-time
        model, in order, up to its last kernel; units are a multiple of split_granule, at most split_most;
        empty: nothing beside it."""

class TaskSpec:
    """What the engine needs of a manifest."""

    def __init__(
        self,
        *,
        name: str,
        task_class: Literal["rt", "be"],
        models: Sequence[tuple[str, Model | None]],
        slots: int,
        deadline_ns: int = 0,
        priority: int = 0,
        weight: int = 100,
        queue: Literal["fail", "block", "latest"] = "fail",
        crc: bool = False,
        payload_crc: bool = False,
        signature: int = 0,
        contexts: int = 0,  # execution contexts; 0: chosen by class
        preemptible: bool = False,  # rt: gives way to rt requests that are more urgent by deadline or priority
        profiles: Sequence[Profile] = (),  # of each of `models`, in their order, or none
        bounds_ns: tuple[int, int, int, int] = (0, 0, 0, 0),  # queueing, preemption, execution, end_to_end; 0: none
        budget: float = 0.0,  # the share of requests that may break a bound
    ) -> None:
        """A model of None is the echo: it copies the first and last 8 bytes of its 64-byte..N-byte input into the
        output on the engine thread, launches nothing, and exists for `reefctl bench ring`. Its input size is given as
        the name `echo:<bytes>` (at least 8); its tensors are `input` (uint8 [bytes]) and `output` (uint8 [16])."""

class Engine:
    def __init__(
        self,
        *,
        device: str = "cpu",
        workers: int = 0,
        policy: str = "reef",
        max_sessions: int = 2000,
        realtime: bool = True,  # raise the engine thread and RT blocks to SCHED_FIFO where allowed
        cpu: int = -1,  # pin the engine thread to this processor; -1: not
        stuck_ns: int = 10_000_000_000,  # a kernel that finishes no block for so long is stuck: "device_stuck"
    ) -> None:
        """device: "cpu", "cuda", "hip", or "simulated": a cost model in simulated time (see advance());
        "simulated graphs" has opinions of windows, like a GPU. policy: "reef",
        or one to measure it against: "reset", "wait", "streams", "sequential"; docs/scheduling.md says what each
        does."""
    device: dict[str, Any]
    """kind, name, detail, target (what GPU code must be made for), compute_units, queues, split_granule (0: no padding
    on this device), split_most, can_reset, may_spin, policy;
    realtime: what was granted, once started."""
    event_fd: int  # readable when poll_events() has something
    turns: int  # of the engine thread so far: it grows at least ten times a second. Reading it waits for nothing

    # ---- models; these may take long and release the GIL
    def load(self, spec: ModelSpec) -> Model: ...
    def run(
        self,
        model: Model,
        inputs: Sequence[Memory],
        outputs: Sequence[Memory],
        *,
        preemptible: bool = False,
    ) -> dict[str, Any]:
        """Runs a model once without a session, before start() (-EBUSY afterwards). Returns {"execute_ns": time}."""

    # ---- life; commands travel through a lock-free queue and return when the engine thread has taken them
    def start(self) -> None: ...
    def stop(self, *, grace_ns: int, keep_sessions: bool) -> dict[str, int]:
        """Stops taking requests, finishes what it can within grace_ns, completes the rest with -ESHUTDOWN (or leaves it
        to the successor: keep_sessions), joins the thread, unmaps every session. Clients see liveness 0 (and, unless
        sessions are kept, the verdict -ESHUTDOWN). Returns the counts {"finished", "failed", "kept"}. poll_events() and
        snapshot() still work; the engine does not start again."""
    def add_task(self, spec: TaskSpec) -> int: ...
    def remove_task(self, task: int) -> None:
        """-EBUSY while a session of it is attached: until poll_events() gave its "detached" event."""
    def region(self, task: int) -> Region: ...
    def attach(
        self,
        *,
        task: int,
        session_id: int,
        daemon_epoch: int,
        c_fd: int,
        d_fd: int,
        doorbell_fd: int = -1,
        socket_fd: int = -1,
        adopt: bool = False,
    ) -> str:
        """Maps both regions, writes D's header (or, with adopt, checks everything in it and replays), and starts
        serving. Descriptors are duplicated. EngineError: -EBADMSG a region that fails its checks, -EPROTONOSUPPORT
        one of another ABI, -EEXIST, -EMFILE, -ENOENT no such task. Without a doorbell the session is looked at every
        5 ms. Returns why the device refused the session's memory, so that it copies tensors; "": it did not."""
    def set_wakeup(self, *, session_id: int, doorbell_fd: int, socket_fd: int) -> None:
        """A client came back after a restart: its new doorbell and socket."""
    def detach(self, *, session_id: int, code: int) -> None:
        """The client is gone (code 0), or to be dropped (code becomes the verdict and the status of its requests):
        freezes, cancels, waits for retirement. poll_events() unmaps it and gives the event "detached"."""
    def set_spinning(self, mode: Literal["auto", "always", "never"]) -> None: ...
    def poll_events(self) -> list[Event]: ...
    def snapshot(self) -> dict[str, Any]:
        """Reads what the engine publishes; never blocks it.

        turns (the sign of life for a watchdog: it grows at least ten times a second), sleeps, doorbells, most_taken
        (entries of best-effort sessions in a single turn: at most 128), allocations
        (on the engine thread, where a counting allocator is preloaded), events_dropped, ladder (0 to 3: what is
        taken from best-effort work because a bound was broken), ladder_name, ladder_down and ladder_up (steps so far);
        tasks: [{task, name, class,
        sessions, accepted, completed, failed, late, expired, cancelled, replayed, preempted, abandoned_windows,
        shielded (windows whose blocks ran to their end once begun), behind_shielded (requests launched behind such),
        broken {of each of the following},
        queueing, preemption, execution, end_to_end}], the last four being histograms {count, sum_ns, max_ns, buckets:
        [(upper bound in ns, count), ...]}; sessions: [{session, task, verdict, locked, accepted, completed, failed,
        late, preempted, queue_ns, execute_ns}].
        """
    def advance(self, ns: int) -> list[int]:
        """Device "simulated" only: lets `ns` of its time pass while this thread takes the engine's turns. A model's
        kernels say their cost in their attributes: blocks, block_ns, check_ns; the first fetch_pieces and the last
        deliver_pieces, of 10 us, for best-effort requests. Returns the nanoseconds of real time
        that each of them took, the last look before a sleep included."""
    def trace(self) -> list[tuple[int, str, int, str, int, int]]:
        """Device "simulated" only: what it did since the last call: (time_ns, "launch" | "block" | "abandon" |
        "retire" | "expect" | "fetch" | "deliver", queue, model, kernel, block); of launch and retire the last two are
        the window's kernels [first, last), of expect 0 and for how many microseconds it was told that the model is
        near: 0, not any more; of fetch and deliver the number of the piece that begins and 0."""
