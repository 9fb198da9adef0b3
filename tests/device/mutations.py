# SPDX-License-Identifier: Apache-2.0
"""Weakens every fence, ordering and check of the CPU device's protocol, one at a time, in a scratch copy, and runs the
stress scenarios over it, plain and under ThreadSanitizer: `python -m tests.device.mutations [WORD...]` (all, or those
with a word in their name). Prints what caught each. On x86 a sequentially consistent load is an ordinary one, and
ThreadSanitizer does not model what a store buffer may hold back: pairs that only this protects are covered by
tests/model/signals.pml.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests import ROOT

QUEUE, QUEUE_H = "reefd/engine/cpu_queue.cpp", "reefd/engine/cpu_queue.hpp"
CONTEXT, CONTEXT_H = "reefd/engine/cpu_context.cpp", "reefd/engine/cpu_context.hpp"
WORKER, DEVICE = "reefd/engine/cpu_worker.cpp", "reefd/engine/cpu_device.cpp"
WORKER_H = "reefd/engine/cpu_worker.hpp"
SIGNALS, SIGNALS_H = "reefd/engine/cpu_signals.cpp", "reefd/engine/cpu_signals.hpp"

Mutation = tuple[str, str, str]  # file, text, what it becomes


def relaxed(path: str, text: str, order: str) -> Mutation:
    """An atomic operation without its ordering."""
    text += f"std::memory_order_{order}"
    return path, text, text.replace(order, "relaxed")


ENTER = "gate >> 32 != mark || (gate & kClosed))\n            return false;\n        //"
MUTATIONS: dict[str, Mutation] = {
    "LAUNCH open": relaxed(QUEUE, "(split) << kSplitShift,\n                ", "seq_cst"),
    "LAUNCH enter": relaxed(QUEUE, "gate + 1, ", "acquire"),
    "RETIRE leave": relaxed(QUEUE, "fetch_sub(1, ", "acq_rel"),
    "RETIRE retire": relaxed(QUEUE, "gate | kRetired, ", "seq_cst"),
    "RETIRE mark stored": relaxed(QUEUE, "retired_.store(mark, ", "seq_cst"),
    "RETIRE mark read": relaxed(QUEUE_H, "retired_.load(", "seq_cst"),
    "CHAIN close": relaxed(QUEUE, "fetch_or(kClosed, ", "seq_cst"),
    "CHAIN engine retires": (DEVICE, "    shared_.retire(queues_[id]);\n", ""),
    "SLEEP gate read": relaxed(QUEUE, "sleeper.\n    uint64_t gate = gate_.load(", "seq_cst"),
    "SLEEP claim read": relaxed(QUEUE, "claim_.load(", "seq_cst"),
    "SLEEP look": (SIGNALS_H, "if (!look())\n", "if (!look() || true)\n"),
    "SLEEP count read": relaxed(SIGNALS, "sleepers_.load(", "seq_cst"),
    "SLEEP word": (SIGNALS, "    word_.fetch_add(1, std::memory_order_seq_cst);\n", ""),
    "ARM look": (DEVICE, "if (queues_[queue].retired() != seen_[queue])", "if (queue > queues_.size())"),
    "ARM stored": relaxed(SIGNALS, "armed_.store(true, ", "seq_cst"),
    "ARM read": relaxed(SIGNALS, "armed_.load(", "seq_cst"),
    "ADVANCE stored": relaxed(QUEUE_H, "next.pack(), ", "seq_cst"),
    "ADVANCE taken": relaxed(QUEUE_H, "fetch_add(1, ", "acquire"),
    "BLOCKS bit": relaxed(CONTEXT_H, "word(kernel, block).fetch_add(bit, ", "acq_rel"),
    "BLOCKS words": relaxed(CONTEXT_H, "full_words_[kernel].fetch_add(1, ", "acq_rel"),
    "BLOCKS pieces": relaxed(CONTEXT, "copied_.fetch_add(1, ", "acq_rel"),
    "DONE stored": relaxed(CONTEXT_H, "kernel + 1, ", "release"),
    "DONE read": relaxed(CONTEXT_H, "kernels_done_.load(", "acquire"),
    "gate without its mark": (QUEUE, ENTER, ENTER.replace("gate >> 32 != mark", "mark == 0")),
    "gate without closed": (QUEUE, ENTER, ENTER.replace(" || (gate & kClosed)", "")),
    "one word completes": (CONTEXT_H, "words == 1 ||", "words != 0 ||"),
    "bit not looked at": (
        WORKER,
        "window.context->is_done(claim.kernel, claim.next)",
        "claim.kernel > claim.blocks + 65535",
    ),
    "first kept": (DEVICE, "    slot.first = first;\n", ""),
    "first block offered": (WORKER, "window.advance(taken);", "window.advance(claim);"),
    "first block dropped": (WORKER, "taken.next = goes_on;", "taken.next = 1;"),
    "epoch not looked at": (WORKER, "if (window.preemptible && queue.epoch() != window.epoch)", "if (false)"),
    "abandoned block counts": (WORKER, "if (!finished) {", "if (!finished && real_time) {"),
    "real time not first": (
        WORKER,
        "        if (!shared_.best_effort_may_begin(window.split, index_))\n            return false;\n        //",
        "        //",
    ),
    "split not left aside": (WORKER_H, " || aside(worker, real_time.split))", ")"),
    "split on every worker": (WORKER_H, "        return aside(worker, split);\n", "        return true;\n"),
    "no split beside real time": (
        WORKER_H,
        "return !exclusive || now.state == CpuWindow::State::absent;",
        "return !exclusive || now.state == CpuWindow::State::absent || aside(worker, now.split);",
    ),
    "piece count kept": (CONTEXT, "    copied_.store(0, std::memory_order_relaxed);  // a copy", "    // a copy"),
    "torn kept": (CONTEXT, "    torn_.store(kNoKernel, std::memory_order_relaxed);\n}", "}"),
    "half a unit saved": (CONTEXT, "if (unit && count != 0 && torn_", "if (false && torn_"),
    "unit not put back": (CONTEXT, "const bool back = torn_.load(", "const bool back = kernel > 65535 && torn_.load("),
    "unit keeps its bits": (
        CONTEXT,
        "bits_[word].store(0, std::memory_order_relaxed);\n        full_words_",
        "full_words_",
    ),
    "unit never shielded": (CONTEXT, "else if (unit || abandoned", "else if (!unit && abandoned"),
}
SCENARIOS = [
    "every_kernel", "random_instants", "redone", "real_time", "generations", "retirement", "shield", "gate",
    "real_time_first", "stale_behind_real_time", "plain_window", "side_by_side", "splits", "uncovered",
    "wakes_for_kernels", "units", "unit_windows", "unit_shield", "same_block", "sleeping", "arming",
]  # fmt: skip


def scratch_copy(folder: Path) -> None:
    for part in ("reefd/engine", "kernels/cpu", "libreef/include", "tests/device"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "native.py"):
        shutil.copy(ROOT / "tests" / name, folder / "tests")


def build(folder: Path, kind: str) -> Path | None:
    code = f"from tests.device import test_stress; print(test_stress.build({kind!r}))"
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    return Path(result.stdout.strip()) if result.returncode == 0 else None


def caught(program: Path, kind: str) -> str:
    """The first scenario that fails, or nothing."""
    environment = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1 exitcode=66 report_bugs=1"}
    rounds = {"plain": "25", "tsan": "4"}[kind]
    for scenario in SCENARIOS:
        for workers in ("2", "3"):
            try:
                command = [str(program), scenario, workers, rounds, "1"]
                code = subprocess.run(command, capture_output=True, env=environment, timeout=20).returncode
            except subprocess.TimeoutExpired:
                return f"{kind} {scenario} (never ended)"
            if code not in (0, 77):
                return f"{kind} {scenario}"
    return ""


def main() -> int:
    wanted = sys.argv[1:]
    survivors = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scratch_copy(folder)
        for title, (path, text, weaker) in MUTATIONS.items():
            if wanted and not any(word in title for word in wanted):
                continue
            original = (folder / path).read_text()
            assert original.count(text) == 1, f"{title}: {path} says {text!r} {original.count(text)} times"
            (folder / path).write_text(original.replace(text, weaker))
            found = ""
            for kind in ("tsan", "plain"):
                program = build(folder, kind)
                found = caught(program, kind) if program else f"{kind}: does not compile"
                if found:
                    break
            print(f"{title:24} {found or 'NOT CAUGHT'}", flush=True)
            survivors += not found
            (folder / path).write_text(original)
    return min(survivors, 1)


if __name__ == "__main__":
    sys.exit(main())
