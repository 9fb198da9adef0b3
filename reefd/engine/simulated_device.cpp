// SPDX-License-Identifier: Apache-2.0
#include "simulated_device.hpp"

#include <algorithm>
#include <utility>

namespace reef {
namespace {

struct Cost {
    uint32_t blocks;
    uint64_t block_ns;
    uint64_t check_ns;
};

class SimulatedModel final : public DeviceModel {
public:
    explicit SimulatedModel(const ModelSpec& spec) : DeviceModel(spec) {
        for (const KernelSpec& kernel : spec.kernels()) {
            auto integer = [&](const char* name, int64_t otherwise) {
                const auto found = kernel.attributes.find(name);
                const int64_t* value =
                    found == kernel.attributes.end() ? &otherwise : std::get_if<int64_t>(&found->second);
                if (!value || *value < 0) {
                    throw ModelError(spec.name() + ": kernel '" + kernel.name + "': " + name +
                                     " is no positive number");
                }
                return static_cast<uint64_t>(*value);
            };
            const uint64_t blocks = std::max<uint64_t>(1, integer("blocks", 1));
            const uint64_t block_ns = std::max<uint64_t>(1, integer("block_ns", 10'000));
            costs.push_back({static_cast<uint32_t>(blocks), block_ns, integer("check_ns", 0)});
            facts_.blocks.push_back(static_cast<uint32_t>(blocks));
            fetch_pieces = costs.size() == 1 ? static_cast<uint32_t>(integer("fetch_pieces", 0)) : fetch_pieces;
            deliver_pieces = static_cast<uint32_t>(integer("deliver_pieces", 0));
        }
    }
    std::vector<Cost> costs;
    uint32_t fetch_pieces = 0;
    uint32_t deliver_pieces = 0;
};

struct SimulatedContext final : Context {
    explicit SimulatedContext(std::shared_ptr<SimulatedModel> of) : model(std::move(of)) {
        for (const Cost& cost : model->costs) {
            done.emplace_back(cost.blocks);
        }
        left.resize(done.size());
        inputs.model = outputs.model = &model->facts().name;
        inputs.pieces = model->fetch_pieces;
        outputs.pieces = model->deliver_pieces;
    }
    std::shared_ptr<SimulatedModel> model;
    std::vector<std::vector<bool>> done;  // the block bits
    std::vector<uint32_t> left;           // blocks of each kernel that are not done
    uint32_t kernels_done = 0;
    SimulatedTransfer inputs, outputs;
    bool bound = false;
    bool delivered = false;  // with a plain window of the real-time queue
};

SimulatedContext& of(Context* context) { return *static_cast<SimulatedContext*>(context); }

}  // namespace

SimulatedDevice::SimulatedDevice(const DeviceOptions& options, bool graphs)
    : info_{.name = "simulated",
            .detail = "cost model, simulated time",
            .compute_units = options.workers ? options.workers : 4,
            .queues = 1 + std::max(4u, options.workers),
            .queue_depth = kDepth,
            .split_granule = 1,
            .split_most = (options.workers ? options.workers : 4) - 1,
            .can_reset = true,
            .may_spin = false,
            .window_ns = graphs ? 500'000u : 0u,
            .window_kernels = graphs ? 4u : 0u,
            .windows_each = graphs ? 2u : 0u},
      exclusive_(options.exclusive), queues_(info_.queues), units_(info_.compute_units) {}

SimulatedDevice::~SimulatedDevice() = default;

std::shared_ptr<DeviceModel> SimulatedDevice::load(const ModelSpec& spec) {
    return std::make_shared<SimulatedModel>(spec);
}

std::unique_ptr<Context> SimulatedDevice::make_context(std::shared_ptr<DeviceModel> model) {
    return std::make_unique<SimulatedContext>(std::static_pointer_cast<SimulatedModel>(model));
}

void SimulatedDevice::record(TraceRecord::What what, QueueId queue, const Window& window, uint32_t a, uint32_t b) {
    trace_.push_back({now_ns_, what, queue, of(window.context).model->facts().name, a, b});
}

void SimulatedDevice::expect(Context* context, uint64_t until_ns) {
    const uint64_t us = until_ns > now_ns_ ? (until_ns - now_ns_) / 1000 : 0;
    trace_.push_back({now_ns_, TraceRecord::What::expect, kRealTimeQueue,
                      context ? of(context).model->facts().name : "", 0, static_cast<uint32_t>(us)});
}

bool SimulatedDevice::stale(const Queue& queue, const Window& window) const {
    return window.preemptible && window.epoch != queue.epoch;
}

void SimulatedDevice::launch(QueueId id, const Window& window) {
    Queue& queue = queues_[id];
    if (queue.count == 0) {
        queue.kernel = window.first;
        queue.block = 0;
    }
    queue.windows[(queue.head + queue.count++) % kDepth] = window;
    SimulatedContext& context = of(window.context);
    context.bound = true;
    context.delivered |= id == kRealTimeQueue && !window.preemptible;
    context.outputs.urgent = id == kRealTimeQueue;
    record(TraceRecord::What::launch, id, window, window.first, window.last);
    start_blocks();
}

void SimulatedDevice::write_epoch(QueueId id, uint32_t epoch) {
    queues_[id].epoch = epoch;
    for (Unit& unit : units_) {
        if (!unit.busy || unit.queue != id || unit.abandoned || !stale(queues_[id], queues_[id].front()) ||
            queues_[id].front().finish_blocks) {
            continue;
        }
        const uint64_t check_ns = of(queues_[id].front().context).model->costs[unit.kernel].check_ns;
        if (check_ns != 0) {
            const uint64_t passed = (now_ns_ - unit.start_ns + check_ns - 1) / check_ns;
            const uint64_t leaves_ns = unit.start_ns + passed * check_ns;
            if (leaves_ns < unit.end_ns) {
                unit.end_ns = leaves_ns;
                unit.abandoned = true;
            }
        }
    }
    finish_blocks();  // those that are at a check point now
    start_blocks();
}

uint32_t SimulatedDevice::retired(QueueId queue) const { return queues_[queue].retired; }

uint32_t SimulatedDevice::kernels_done(const Context& context) const {
    return static_cast<const SimulatedContext&>(context).kernels_done;
}

void SimulatedDevice::clear_record(Context& cleared) {
    SimulatedContext& context = of(&cleared);
    for (size_t k = 0; k < context.done.size(); ++k) {
        context.left[k] = static_cast<uint32_t>(context.done[k].size());
        std::fill(context.done[k].begin(), context.done[k].end(), false);
    }
    context.kernels_done = 0;
    for (SimulatedTransfer* transfer : {&context.inputs, &context.outputs}) {
        transfer->issued = transfer->landed = 0;
        transfer->urgent = false;
    }
    context.bound = context.delivered = false;
}

bool SimulatedDevice::fetch(Context& fetched, const Binding&) {
    SimulatedContext& context = of(&fetched);
    if (!context.bound && context.inputs.pieces != 0) {
        inputs_.begin(context.inputs);
    }
    context.bound = true;
    return !context.inputs.open || inputs_.there(context.inputs);
}

bool SimulatedDevice::deliver(Context& delivered) {
    SimulatedContext& context = of(&delivered);
    if (!context.delivered && context.outputs.issued == 0 && !context.outputs.open && context.outputs.pieces != 0) {
        outputs_.begin(context.outputs);
    }
    return !context.outputs.open || outputs_.there(context.outputs);
}

bool SimulatedDevice::drop(Context& dropped) {
    SimulatedContext& context = of(&dropped);
    const bool inputs = inputs_.drop(context.inputs), outputs = outputs_.drop(context.outputs);
    return inputs && outputs;
}

void SimulatedDevice::poll(bool hold) {
    held_ = hold;
    auto issuing = [this](TraceRecord::What what) {
        return [this, what](const SimulatedTransfer& transfer) {
            trace_.push_back({now_ns_, what, kRealTimeQueue, *transfer.model, transfer.issued, 0});
        };
    };
    if (!hold) {
        inputs_.poll(false, now_ns_, issuing(TraceRecord::What::fetch));
    }
    outputs_.poll(hold, now_ns_, issuing(TraceRecord::What::deliver));
}

// Takes windows that are over, finished or stale, off the head of the queue.
void SimulatedDevice::retire_finished(QueueId id) {
    Queue& queue = queues_[id];
    while (queue.count != 0 && queue.running == 0) {
        const Window& window = queue.front();
        if (!stale(queue, window)) {
            skip_done(queue);
            if (queue.kernel != window.last) {
                return;
            }
        }
        record(TraceRecord::What::retire, id, window, window.first, window.last);
        queue.retired = window.mark;
        queue.head = (queue.head + 1) % kDepth;
        --queue.count;
        queue.kernel = queue.count != 0 ? queue.front().first : 0;
        queue.block = 0;
    }
}

// Moves on to the next block that is not done; to the next kernel only when no block of this one runs any more.
void SimulatedDevice::skip_done(Queue& queue) {
    const Window& window = queue.front();
    while (queue.kernel != window.last) {
        const auto& bits = of(window.context).done[queue.kernel];
        while (queue.block < bits.size() && bits[queue.block]) {
            ++queue.block;
        }
        if (queue.block < bits.size() || queue.running != 0) {
            return;
        }
        ++queue.kernel;
        queue.block = 0;
    }
}

bool SimulatedDevice::next_block(QueueId id, Unit& unit) {
    Queue& queue = queues_[id];
    retire_finished(id);
    if (queue.count == 0 || stale(queue, queue.front())) {
        return false;
    }
    skip_done(queue);
    const Window& window = queue.front();
    if (queue.kernel == window.last || queue.block == of(window.context).done[queue.kernel].size()) {
        return false;
    }
    const Cost& cost = of(window.context).model->costs[queue.kernel];
    unit = {true, false, id, queue.kernel, queue.block, now_ns_, now_ns_ + cost.block_ns};
    ++queue.block;
    ++queue.running;
    return true;
}

// Whether blocks of the window at the head of the queue may begin on this unit.
bool SimulatedDevice::may_begin(QueueId id, uint32_t unit) {
    retire_finished(id);
    if (queues_[id].count == 0) {
        return false;
    }
    const uint32_t units = info_.compute_units;
    const uint32_t split = queues_[id].front().split;
    if (id == kRealTimeQueue) {
        return unit < units - split;
    }
    const bool aside = split != kNoSplit && unit >= units - split;
    if (exclusive_ && queues_[kRealTimeQueue].count != 0) {
        return aside && unit >= units - queues_[kRealTimeQueue].front().split;
    }
    return aside || split == kNoSplit;
}

void SimulatedDevice::start_blocks() {
    retire_finished(kRealTimeQueue);
    for (Unit& unit : units_) {
        const auto index = static_cast<uint32_t>(&unit - units_.data());
        if (unit.busy || (may_begin(kRealTimeQueue, index) && next_block(kRealTimeQueue, unit))) {
            continue;
        }
        for (uint32_t i = 0; i + 1 < queues_.size() && !unit.busy; ++i) {
            const QueueId id = 1 + (turn_ - 1 + i) % (info_.queues - 1);
            if (may_begin(id, index) && next_block(id, unit)) {
                turn_ = 1 + id % (info_.queues - 1);
                break;
            }
        }
    }
    for (QueueId id = 0; id < queues_.size(); ++id) {
        retire_finished(id);  // also where every unit is busy elsewhere
    }
}

void SimulatedDevice::finish(Unit& unit) {
    Queue& queue = queues_[unit.queue];
    Window& window = queue.front();
    SimulatedContext& context = of(window.context);
    unit.busy = false;
    --queue.running;
    record(unit.abandoned ? TraceRecord::What::abandon : TraceRecord::What::block, unit.queue, window, unit.kernel,
           unit.block);
    if (!unit.abandoned) {
        context.done[unit.kernel][unit.block] = true;
        if (--context.left[unit.kernel] == 0) {
            context.kernels_done = unit.kernel + 1;
        }
    }
}

void SimulatedDevice::finish_blocks() {
    for (Unit& unit : units_) {
        if (unit.busy && unit.end_ns <= now_ns_) {
            finish(unit);
        }
    }
}

uint64_t SimulatedDevice::next_event_ns() const {
    uint64_t next = UINT64_MAX;
    for (const Unit& unit : units_) {
        if (unit.busy) {
            next = std::min(next, unit.end_ns);
        }
    }
    return std::min({next, inputs_.next_ns(), outputs_.next_ns()});
}

void SimulatedDevice::advance_to(uint64_t time_ns) {
    while (next_event_ns() <= time_ns) {
        now_ns_ = next_event_ns();
        inputs_.land(now_ns_);
        outputs_.land(now_ns_);
        finish_blocks();
        start_blocks();
    }
    now_ns_ = std::max(now_ns_, time_ns);
}

std::vector<TraceRecord> SimulatedDevice::take_trace() { return std::exchange(trace_, {}); }

}  // namespace reef
