// SPDX-License-Identifier: Apache-2.0
// What one running request owns on a GPU: its arena, its copies of inputs and outputs, its record, and the launches of
// the model with every argument fixed, as graphs.
//
// The epoch that the kernels of a context watch is the context's own, not the queue's: a graph then fits every queue, and
// a queue's epoch reaches the device as a new epoch of the contexts that have windows on it. The context's epoch only
// moves on, and all its writes go one way, so a late write can make a window fall through that need not (it is launched
// again), but never keep one alive.
//
// Device memory:  arena | inputs | outputs | workspace | epoch word, window words | a word for each block
// Host memory:    output address | progress word | epoch word where the host writes it | staged inputs | staged outputs
#pragma once
#include <optional>
#include <span>
#include <vector>

#include "device.hpp"
#include "gpu_model.hpp"
#include "gpu_transfer.hpp"

namespace reef {

// Kernels in one graph of a best-effort request: few, because a window that begins within a graph passes those that are
// done (1.5 us each). Kernels of two graphs do not overlap: ResNet-152 in graphs of eight got 0.92 done.
inline constexpr uint32_t kSegment = 16;

// What reef_window_begin (kernels/gpu/window.cuh) is told of the windows from now on.
struct GpuWindow {
    uint32_t epoch = 0;
    uint32_t first = 0;    // kernel
    uint32_t reached = 0;  // kernels of the request up to here were launched under the epoch before; 0: none
    uint32_t shielded = 0;
    bool operator==(const GpuWindow&) const = default;
};

// A run of kernels as a graph.
struct GpuSegment {
    uint32_t first;
    uint32_t last;
    DriverGraphExec* plain;
    std::vector<DriverGraphExec*> preemptible;  // by split
};

// Where a context is captured: a stream gives its priority and its compute units to the kernels of a graph. Streams are
// by split: [0] for the whole device, [i] for the i-th split.
struct GpuCapture {
    std::span<DriverStream* const> real_time;
    std::span<DriverStream* const> best_effort;
    const void* count;  // of the real-time queue, whose windows end within their graph
    void* mark;
};

class GpuContext final : public Context {
public:
    GpuContext(std::shared_ptr<const Driver> driver, std::shared_ptr<const GpuModel> model, const GpuCapture& capture,
               ContextUse use);
    ~GpuContext() override;

    const GpuModel& model() const { return *model_; }
    // How many kernels are done, from the first.
    uint32_t done() const;
    // A window of plain kernels up to `last` has retired.
    void finish_plain(uint32_t last) { done_ = std::max(done_, last); }
    void clear();
    // Before the first window of a request, or the transfer of its inputs: notes where its tensors lie. Those that the device
    // cannot reach pass through host memory of the context.
    void bind(const Binding& binding);
    bool bound() const { return bound_; }

    // ---- tensors; `at` and `bytes` are of all inputs, or of all outputs. The driver's status
    int copy_in(size_t at, size_t bytes, DriverStream* stream) const;
    int copy_out(size_t at, size_t bytes, DriverStream* stream) const;
    // The same for all of them, in queue order before the first kernel, and behind the last.
    int take_inputs(DriverStream* stream);
    int send_outputs(DriverStream* stream);
    // What copy_out, or the kernel for outputs, brought to the host goes on to memory that the device does not reach.
    void pass_on(size_t at, size_t bytes) const;
    GpuTransfer inputs, outputs;

    // ---- launching, in queue order; the driver's status
    int launch_whole(DriverStream* stream, uint32_t split) const {
        return driver_->launch_graph(whole_[split], stream);
    }
    bool has_whole() const { return !whole_.empty(); }
    int launch_plain(DriverStream* stream, uint32_t split, uint32_t first, uint32_t last) const;
    // Writes the window's words where they changed, then kernels [first, last).
    int launch_preemptible(DriverStream* stream, uint32_t split, uint32_t first, uint32_t last, uint32_t shielded);
    int launch_end(DriverStream* stream, const void* count, void* mark, uint32_t last, bool preemptible) const;
    // Makes what was launched up to now invalid, where the host writes the epoch itself; else once what it returns is written
    // on that stream.
    std::optional<DriverWord> invalidate(DriverStream* signals);
    uint32_t epoch() const { return epoch_; }
    // A new try at its first unfinished kernel: true when it was tried `limit` times in vain.
    bool shield(uint32_t kernel, uint32_t limit);

    bool staged = false;  // the request's tensors pass through host memory

private:
    struct Layout;
    const void* resolve(const GpuArgument& argument, const Layout& layout) const;
    int launch_kernel(DriverStream* stream, uint32_t kernel, bool preemptible, bool overlap) const;
    int launch_range(DriverStream* stream, uint32_t split, uint32_t first, uint32_t last, bool preemptible) const;
    void capture_segments(const GpuCapture& capture);
    DriverGraphExec* capture_range(DriverStream* stream, uint32_t first, uint32_t last, bool preemptible,
                                   const GpuCapture* end) const;
    void release_graphs();

    const std::shared_ptr<const Driver> driver_;
    const std::shared_ptr<const GpuModel> model_;
    DeviceMemory memory_;
    HostMemory host_;
    std::vector<GpuArgs> arguments_;
    std::vector<GpuPlace> places_;         // one more than kernels: the end of the model
    std::vector<DriverGraphExec*> whole_;  // by split; empty: none was captured
    std::vector<GpuSegment> segments_;

    void* epoch_word_ = nullptr;  // as the device sees it
    uint32_t* host_epoch_ = nullptr;
    DriverStream* signals_ = nullptr;  // where the epoch was written last, by the device
    void* window_words_ = nullptr;
    const uint32_t* progress_ = nullptr;
    uint64_t* output_address_ = nullptr;
    std::byte* inputs_ = nullptr;  // device memory
    const std::byte* outputs_ = nullptr;
    size_t staged_inputs_ = 0, staged_outputs_ = 0;  // offsets in host_

    mutable uint32_t done_ = 0;  // the most that was ever seen
    uint32_t epoch_ = 1;
    GpuWindow window_{};          // what the kernels were told last, in queue order
    uint32_t reached_ = 0;        // preemptible kernels of this request launched under epoch_, up to here
    uint32_t stale_reached_ = 0;  // the same under the last epoch before it under which there were any
    bool bound_ = false;
    Binding binding_{};
    uint32_t tried_kernel_ = 0;
    uint32_t tries_ = 0;
};

}  // namespace reef
