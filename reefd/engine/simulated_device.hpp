// SPDX-License-Identifier: Apache-2.0
// A device in simulated time, for scenarios of the real scheduler: nothing runs, time passes only in advance_to(), and
// the same calls give the same trace to the nanosecond.
//
// A kernel's attributes are its cost model: `blocks` (default 1), `block_ns` (default 10,000) for each, and `check_ns`,
// the time between check points of a preemptible block (0: none, it finishes once started). Each compute unit runs one
// block. `fetch_pieces` of the first kernel and `deliver_pieces` of the last (default 0) make inputs and outputs of
// best-effort requests take their time. A free unit takes a block of the real-time queue if there is one, else of the best-effort queues in turn. The engine
// has a queue for each unit, at least four for best effort.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "device.hpp"
#include "simulated_transfers.hpp"

namespace reef {

struct TraceRecord {
    enum class What : uint8_t { launch, block, abandon, retire, expect, fetch, deliver };
    uint64_t time_ns;
    What what;
    QueueId queue;
    std::string model;
    uint32_t kernel;  // launch, retire: the window's first; expect: 0; fetch, deliver: the piece that begins
    uint32_t block;   // launch, retire: the window's last; expect: for how long, in microseconds; fetch, deliver: 0
};

class SimulatedDevice final : public Device {
public:
    // `graphs`: one whose windows should end at every fourth kernel and take at most half a millisecond, two on a queue.
    explicit SimulatedDevice(const DeviceOptions& options, bool graphs = false);
    ~SimulatedDevice() override;

    const DeviceInfo& info() const override { return info_; }
    std::shared_ptr<DeviceModel> load(const ModelSpec& spec) override;
    using Device::make_context;
    std::unique_ptr<Context> make_context(std::shared_ptr<DeviceModel> model) override;
    void launch(QueueId queue, const Window& window) override;
    void write_epoch(QueueId queue, uint32_t epoch) override;
    uint32_t retired(QueueId queue) const override;
    uint32_t kernels_done(const Context& context) const override;
    bool fetch(Context& context, const Binding& binding) override;
    bool deliver(Context& context) override;
    bool drop(Context& context) override;
    bool transferring() const override { return (inputs_.open() || outputs_.open()) && !held_; }
    bool copying() const override { return inputs_.in_flight() || outputs_.in_flight(); }
    void poll(bool hold) override;
    void clear_record(Context& context) override;
    int event_fd() const override { return -1; }
    bool arm() override { return true; }
    uint64_t now_ns() const override { return now_ns_; }
    void expect(Context* context, uint64_t until_ns) override;

    // When the next block ends or leaves, or the next piece lands; UINT64_MAX: nothing runs.
    uint64_t next_event_ns() const;
    void advance_to(uint64_t time_ns);
    std::vector<TraceRecord> take_trace();

private:
    static constexpr uint32_t kDepth = 8;
    struct Queue {
        std::array<Window, kDepth> windows{};
        uint32_t head = 0;
        uint32_t count = 0;
        uint32_t kernel = 0;   // of the window at the head
        uint32_t block = 0;    // the next one to start
        uint32_t running = 0;  // blocks on compute units
        uint32_t epoch = 0;
        uint32_t retired = 0;
        Window& front() { return windows[head]; }
    };
    struct Unit {
        bool busy = false;
        bool abandoned = false;
        QueueId queue = 0;
        uint32_t kernel = 0;
        uint32_t block = 0;
        uint64_t start_ns = 0;
        uint64_t end_ns = 0;
    };

    void start_blocks();
    void retire_finished(QueueId queue);
    static void skip_done(Queue& queue);
    bool next_block(QueueId queue, Unit& unit);
    bool may_begin(QueueId queue, uint32_t unit);
    void finish(Unit& unit);
    void finish_blocks();
    bool stale(const Queue& queue, const Window& window) const;
    void record(TraceRecord::What what, QueueId queue, const Window& window, uint32_t a, uint32_t b);

    DeviceInfo info_;
    const bool exclusive_;
    uint64_t now_ns_ = 1'000'000'000;  // not 0: a time of 0 means none
    std::vector<Queue> queues_;
    std::vector<Unit> units_;
    QueueId turn_ = 1;
    SimulatedTransfers inputs_;
    SimulatedTransfers outputs_;
    bool held_ = false;
    std::vector<TraceRecord> trace_;
};

}  // namespace reef
