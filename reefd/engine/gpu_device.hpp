// SPDX-License-Identifier: Apache-2.0
// The device contract on a GPU, for CUDA and HIP: one implementation over the driver's table.
//
// A queue is a stream. A window is: what its context needs first (record cleared, epoch), graphs of preemptible kernels,
// and an end kernel that counts the window in device memory and shows the count in a host-visible word, the retirement
// mark. Progress is published by the kernels themselves (kernels/gpu/gate.cuh). So nothing is asked of the driver to see
// where work stands; it is entered to launch, to write an epoch, and for copies.
//
// Three things differ from the CPU device, because blocks that the driver has are out of our hands: stale windows pass
// through their queue (each kernel begins and leaves at once) instead of retiring by write_epoch itself; best-effort
// blocks are kept from compute units by stream priority alone while real-time work runs; and a shielded instance keeps its
// blocks, but may be stopped between two of them.
#pragma once
#include <array>
#include <atomic>
#include <mutex>
#include <vector>

#include "device.hpp"
#include "gpu_context.hpp"

namespace reef {

struct GpuOptions {
    int ordinal = 0;
    uint32_t best_effort_queues = 4;
    uint32_t shield_after = 8;  // tries of one instance
};

class GpuDevice final : public Device {
public:
    // DriverError: no such device.
    GpuDevice(std::shared_ptr<const Driver> driver, const GpuOptions& options);
    ~GpuDevice() override;

    const DeviceInfo& info() const override { return info_; }
    std::shared_ptr<DeviceModel> load(const ModelSpec& spec) override;
    std::unique_ptr<Context> make_context(std::shared_ptr<DeviceModel> model) override {
        return make_context(std::move(model), ContextUse::either);
    }
    std::unique_ptr<Context> make_context(std::shared_ptr<DeviceModel> model, ContextUse use) override;
    bool reach(std::byte* memory, size_t bytes, std::string& refused) override;
    void forget(std::byte* memory) override;

    void launch(QueueId queue, const Window& window) override;
    void write_epoch(QueueId queue, uint32_t epoch) override;
    void write_epochs(std::span<const QueueEpoch> epochs) override;
    uint32_t retired(QueueId queue) const override;
    uint32_t kernels_done(const Context& context) const override;
    bool fetch(Context& context, const Binding& binding) override;
    bool deliver(Context& context) override;
    bool drop(Context& context) override;
    bool transferring() const override { return (inputs_->open() || outputs_->open()) && !held_; }
    bool copying() const override { return inputs_->in_flight() || outputs_->in_flight(); }
    void poll(bool hold) override;
    void clear_record(Context& context) override;
    int event_fd() const override { return -1; }
    bool arm() override { return true; }
    uint64_t now_ns() const override;
    uint64_t vacated_ns(QueueId queue) const override { return queues_[queue].vacated_ns; }
    const char* fault() override;

private:
    static constexpr uint32_t kDepth = 8;
    // A window that was launched; kept until it was seen to have retired.
    struct Flight {
        GpuContext* context = nullptr;
        uint32_t last = 0;
        uint32_t epoch = 0;          // the queue's
        uint32_t context_epoch = 0;  // under which its kernels run
        bool brings = false;         // outputs to the host, if it gets to its end
        bool preemptible = false;
        bool stale = false;
        bool runs = false;
    };
    struct Queue {
        std::vector<DriverStream*> streams;  // by split; [0] has the whole device
        DriverStream* stream = nullptr;      // of these, the one launched on last
        DriverEvent* changed = nullptr;      // orders the next one behind it
        void* count = nullptr;               // device memory
        void* mark = nullptr;                // host memory as the device sees it
        const uint32_t* word = nullptr;      // the same as the host sees it
        uint32_t epoch = 0;
        uint32_t launched = 0;
        uint32_t seen = 0;
        uint64_t vacated_ns = 0;
        std::array<Flight, kDepth> flights{};
        Flight& flight(uint32_t mark_of) { return flights[mark_of % kDepth]; }
    };

    void enter() const;
    void describe();
    void make_splits(int least, int greatest);
    // The queue's stream for a window, behind what was launched on another; the driver's status.
    int choose_stream(Queue& queue, uint32_t split) const;
    // Adds what has to be written for it.
    void invalidate(const QueueEpoch& epoch);
    void write_words();
    void settle(Queue& queue, Flight& flight) const;
    void keep_warm(uint64_t now_ns);
    void failed(int status, const char* call);

    const std::shared_ptr<const Driver> driver_;
    const GpuOptions options_;
    DeviceInfo info_;
    int device_ = 0;
    DeviceMemory counts_;
    HostMemory words_;
    DriverStream* signals_ = nullptr;  // epoch writes: never behind anything
    void* unread_ = nullptr;           // device memory: what keep_warm() writes
    uint64_t warmed_ns_ = 0;
    uint32_t warmings_ = 0;
    std::array<DriverWord, kDriverWords> to_write_{};
    uint32_t to_write_count_ = 0;
    std::vector<DriverSplit*> splits_;                // i-th: (i + 1) granules set aside
    std::vector<DriverStream*> capture_best_effort_;  // by split
    std::vector<DriverStream*> capture_real_time_;
    mutable std::vector<Queue> queues_;
    std::unique_ptr<GpuTransfers> inputs_;   // of best-effort requests, before their first window
    std::unique_ptr<GpuTransfers> outputs_;  // behind their last one, where no kernel writes them
    bool held_ = false;
    uint64_t real_time_inputs_ns_ = 0;  // until then a real-time request's inputs may still be on their way
    std::mutex loading_;
    char fault_[256] = {};
    bool faulted_ = false;
};

// kind: "cuda" or "hip". DriverError: no driver, or no such device.
std::unique_ptr<GpuDevice> make_gpu_device(const std::string& kind, const GpuOptions& options = {});

}  // namespace reef
