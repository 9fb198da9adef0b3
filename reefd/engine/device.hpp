// SPDX-License-Identifier: Apache-2.0
// The device contract: all that the engine knows of a CPU, a GPU or a simulated device.
//
// A device has one real-time queue and a few best-effort queues. The engine launches windows (runs of kernel instances
// of one request) on them, invalidates best-effort windows by writing the queue epoch, and reads progress, completion
// and retirement from words in memory: no call here blocks, allocates, takes a lock or enters a driver to poll.
//
//   loader thread                         engine thread
//   load, unload                          launch, write_epoch, retired, kernels_done, clear_record
//   make_context, free_context            fetch, deliver, drop, poll
//
// Retirement is the only proof that no block of a window runs any more. A window that was launched is retired exactly
// once: after its last kernel, or after its epoch became stale and the last block in flight has left.
//
// What a backend must keep, and the engine may rely on:
// - Windows of a queue run and retire in the order of their marks, which count by one. Two windows of one request may be
//   in flight on one queue, with the same binding; a window begins at its `first` or, if that is further, at the first
//   kernel that is not done, and skips the blocks of it that are. None is launched behind a stale window of its own
//   request that has not retired: that one may still finish the very kernel at which the new one begins.
// - Epochs of a queue only move on. A window launched under another epoch than the queue's, or with nothing left to run,
//   retires in its turn without running a block. Stale windows that nobody has begun retire by write_epoch itself: they
//   never wait for a free compute unit, so real-time work on all of them does not hold up what the engine wants to reuse.
// - A block that was taken finishes or is abandoned; it is never dropped. A finished one never runs again, because its
//   bit is set before it counts, and it counts before its kernel can be done.
// - kernels_done may run ahead of retirement: it says what to launch next, never what may be reused.
// - While a real-time window is on the device, no compute unit begins a best-effort block, whatever its epoch: beginning
//   one would delay the next real-time kernel by up to a block. Not so on units that the window leaves aside (its split):
//   there blocks of best-effort windows with a split begin, and of no others. And not where DeviceOptions::exclusive is
//   false: there a unit takes a best-effort block whenever no real-time block is left to take.
// - The split in force is that of the window at the head of the real-time queue. Windows of one queue may differ in their
//   split; they run in order as ever, and a backend that has a stream for each split orders them itself.
// - Plain windows on a best-effort queue carry no checks: once launched they run to their end, whatever the epoch.
// - Windows of the real-time queue may be preemptible too: one that is to give way is invalidated by that queue's epoch,
//   resumes like a best-effort window, and counts as real-time work in everything else.
// - An instance that is not restorable (restorable.hpp) is a unit: it takes effect whole or not at all. Before its first
//   block a backend saves what the instance both reads and writes, in memory of the execution context that was there
//   when the context was made (ModelFacts::snapshot_bytes). A unit that was begun and has not finished is put back from there
//   before any block of it begins again, and forgets its finished blocks. Saving and putting back are themselves begun again
//   when they were interrupted, and no block of the unit begins before the last byte of either. Where blocks that have
//   begun run to their end (plain windows, finish_blocks) finished ones stand and nothing is saved.
//   The CPU device abandons blocks of a unit at their check points like any others: the snapshot makes that safe, and
//   the promised bound holds. A backend that cannot stop a kernel inside (no check points, vendor code) decides once
//   for the whole grid, in queue order: copy kernel, go or no-go on the epoch, kernel without checks; and restores only
//   where it had to kill it. One that does neither refuses the model at load, by the kernel's name.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "model.hpp"

namespace reef {

// A device's execution context: activation arena, progress record (block bits, kernels done). Each device derives its
// own; a definition of `Context` in every device's file would be one name for different classes.
class Context {
public:
    virtual ~Context() = default;
    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;

protected:
    Context() = default;
};

using QueueId = uint32_t;
inline constexpr QueueId kRealTimeQueue = 0;  // best-effort queues are 1 .. queues - 1

struct QueueEpoch {
    QueueId queue;
    uint32_t epoch;
};
// Engine::run() has the one before; an epoch never comes again.
inline constexpr uint32_t kFirstEpoch = 2;

struct DeviceInfo {
    std::string name;    // "cpu", "NVIDIA H200"
    std::string detail;  // instruction set, driver version
    uint32_t compute_units;
    uint32_t queues;            // including the real-time queue
    uint32_t queue_depth;       // windows that may be launched and not retired on one queue
    uint32_t split_granule;     // a split is a multiple of it; 0: windows cannot have one
    uint32_t split_most;        // the largest split
    bool can_reset;             // blocks check the epoch while they run
    bool may_spin;              // polling its words from the engine thread takes no work from it
    bool real_time = false;     // real-time blocks run above every ordinary thread of the machine
    std::string target{};       // what code must be made for ("sm_90a", "gfx906"); "": any, or not known
    uint64_t memory_total = 0;  // of its own, bytes
    uint64_t memory_free = 0;   // when it was opened
    int priorities = 1;         // levels of its queues
    // Of best-effort windows. Wise here, or 0: no opinion.
    uint64_t window_ns = 0;       // the longest, by its estimate
    uint32_t window_kernels = 0;  // a window ends at the next multiple of it
    uint32_t windows_each = 0;    // on one queue at a time
};

// What one compute unit has done since the device started. Free-running.
struct WorkerStatistics {
    uint64_t real_time_ns;
    uint64_t best_effort_ns;
    uint64_t blocks;     // finished
    uint64_t abandoned;  // begun and not finished
    uint64_t left_ns;    // when it left the best-effort block that it was in when somebody asked; 0: nobody did
};

// The place of a request's tensors: base addresses as the device sees them.
struct Binding {
    std::byte* inputs;            // the slot's input area (region C)
    std::byte* outputs;           // the slot's output area (region D)
    bool device_reaches = false;  // both lie in memory for which Device::reach said yes; else a GPU copies them itself
    // Counts the times that the process died inside this request's kernels (crash.hpp); null: nobody counts.
    uint32_t* crashes = nullptr;
};

inline constexpr uint32_t kNoSplit = 0;  // all compute units

struct Window {
    Context* context;
    Binding binding;
    uint32_t first;  // kernel instances [first, last)
    uint32_t last;
    uint32_t epoch;    // best effort: valid while it equals the queue epoch
    bool preemptible;  // false: plain kernels, ignores the epoch
    uint32_t mark;     // the queue's retirement mark of this window: previous mark + 1
    // Preemptible: the epoch is looked at before each block only, and a block that has begun runs to its end.
    bool finish_blocks = false;
    // Real time: the last `split` compute units are not used. Best effort: only they are, and also while a real-time window
    // with a split runs beside it. Less than compute_units.
    uint32_t split = kNoSplit;
};

// What a context will be used for, so that a device makes ready only that.
enum class ContextUse : uint8_t { either, real_time, best_effort };

class Device {
public:
    virtual ~Device() = default;
    virtual const DeviceInfo& info() const = 0;

    // ---- loader thread; may take long; throws ModelError with the kernel's name and the reason
    virtual std::shared_ptr<DeviceModel> load(const ModelSpec& spec) = 0;
    virtual std::unique_ptr<Context> make_context(std::shared_ptr<DeviceModel> model) = 0;
    virtual std::unique_ptr<Context> make_context(std::shared_ptr<DeviceModel> model, ContextUse) {
        return make_context(std::move(model));
    }
    // Memory of a session, before its first window: true where windows may be bound to it as it is, and then forget()
    // ends that, after its last window retired. False, and `refused` says why if the driver could have done it.
    virtual bool reach(std::byte*, size_t, std::string& /*refused*/) { return true; }
    virtual void forget(std::byte*) {}

    // ---- engine thread
    // Appends a window to a queue. The queue must have room (queue_depth). A window runs after those before it.
    virtual void launch(QueueId queue, const Window& window) = 0;
    // Makes every window of this queue with another epoch invalid: those not started fall through, running blocks are
    // abandoned at their next check point.
    virtual void write_epoch(QueueId queue, uint32_t epoch) = 0;
    // The same of several queues, for less where a driver is asked.
    virtual void write_epochs(std::span<const QueueEpoch> epochs) {
        for (const auto& [queue, epoch] : epochs) {
            write_epoch(queue, epoch);
        }
    }
    // The mark of the last retired window of this queue (windows retire in order).
    virtual uint32_t retired(QueueId queue) const = 0;
    // How many kernel instances of the context are done, counted from the first: [0, kernels].
    virtual uint32_t kernels_done(const Context& context) const = 0;
    // A number that changes whenever the context gets on: finished kernels, or finer where the device knows more.
    virtual uint64_t progress(const Context& context) const { return kernels_done(context); }
    // Best effort, before a request's first window: begins to bring its inputs to the device ahead of that window, and then
    // says whether they are there. True: it may be launched. A device whose real-time inputs would wait behind those of
    // best-effort work brings them in pieces, from poll(); a request that is launched without a fetch takes them along.
    virtual bool fetch(Context&, const Binding&) { return true; }
    // When the last window has retired and every kernel is done: begins to bring the outputs to the request's memory, and
    // then says whether they are there. True: the request is complete. A device on which outputs of best-effort work would
    // delay real-time work brings them in pieces, from poll(). Those of plain windows on the real-time queue are there when
    // these have retired.
    virtual bool deliver(Context&) { return true; }
    // Brings no more of either. True: nothing of the request's memory is being read or written any more. Ask again until it
    // is.
    virtual bool drop(Context&) { return true; }
    // Tensors are on their way, and not held; or they have come and nobody asked since: a turn is due soon.
    virtual bool transferring() const { return false; }
    // Some request's memory is being read for a fetch, or written for a delivery.
    virtual bool copying() const { return false; }
    // In every turn, after real-time requests were launched: begins the next pieces. With `hold` only those of requests of
    // the real-time queue: such work is near.
    virtual void poll(bool) {}
    // Forgets all progress, for a new request. Only after the last window that used the context has retired.
    virtual void clear_record(Context& context) = 0;
    // Readable when something was retired since the last call of arm(); -1 where the engine must poll.
    virtual int event_fd() const = 0;
    // Asks for event_fd to become readable at the next retirement. False: something retired meanwhile, look again.
    virtual bool arm() = 0;
    virtual uint64_t now_ns() const = 0;
    // When the last stale window of this queue was found empty: minus the time of write_epoch, the preemption latency.
    // 0 where the device cannot tell.
    virtual uint64_t vacated_ns(QueueId) const { return 0; }
    // Real-time work on this context is near: until then the compute units may stay awake, as far as nothing else needs
    // their processors, and bring what the model reads near. Null: no context in particular. until_ns 0: the work is there,
    // or none is to come. A hint: it changes nothing of what runs.
    virtual void expect(Context*, uint64_t) {}
    // Why the device will never answer again; null while it works. The engine asks a few times a second; may enter a driver.
    virtual const char* fault() { return nullptr; }
    // Of compute unit 0 and on, at most `room`; returns how many it tells of. Any thread.
    virtual uint32_t statistics(WorkerStatistics*, uint32_t) const { return 0; }
};

struct DeviceOptions {
    uint32_t workers;       // compute units of the CPU device; 0: one for each core it may use
    bool realtime;          // its threads may use SCHED_FIFO for real-time blocks
    bool exclusive = true;  // false: priorities alone, as a vendor's streams have them (policy `streams`)
};

std::unique_ptr<Device> make_cpu_device(const DeviceOptions& options);  // cpu_device.cpp

}  // namespace reef
