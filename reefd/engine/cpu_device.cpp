// SPDX-License-Identifier: Apache-2.0
#include "cpu_device.hpp"

#include <sched.h>

#include <algorithm>
#include <stdexcept>

#include "clock.hpp"
#include "cpu_context.hpp"
#include "cpu_model.hpp"
#include "cpu_place.hpp"

namespace reef {
namespace {

constexpr int kFifoPriority = 10;  // above ordinary threads, below the engine thread

CpuContext& own(Context& context) { return static_cast<CpuContext&>(context); }
const CpuContext& own(const Context& context) { return static_cast<const CpuContext&>(context); }

}  // namespace

CpuDevice::CpuDevice(const CpuOptions& options)
    : options_(options), queues_(1 + options.best_effort_queues), seen_(queues_.size()) {
    const std::vector<int> cpus = allowed_cpus();
    const uint32_t workers = options.workers ? options.workers : static_cast<uint32_t>(cpus.size());
    if (workers > kMaxWorkers)
        throw std::invalid_argument("more than " + std::to_string(kMaxWorkers) + " workers");
    shared_.queues = queues_;
    shared_.spin_ns = workers <= cpus.size() ? options.spin_ns : 0;
    shared_.fifo_priority = options.realtime ? kFifoPriority : 0;
    shared_.workers = workers;
    shared_.exclusive = options.exclusive;
    bool real_time = options.realtime;
    try {
        for (uint32_t i = 0; i < workers; i++) {
            workers_.push_back(std::make_unique<CpuWorker>(shared_, i));
            workers_.back()->start(cpus[i % cpus.size()]);
            real_time = real_time && workers_.back()->real_time();
        }
    } catch (...) {
        stop();
        throw;
    }
    const char* scheduling = !options.realtime ? "" : real_time ? ", SCHED_FIFO" : ", SCHED_FIFO not permitted";
    info_ = {.name = "cpu",
             .detail = options.isa.name + scheduling,
             .compute_units = workers,
             .queues = static_cast<uint32_t>(queues_.size()),
             .queue_depth = kQueueDepth,
             .split_granule = 1,
             .split_most = workers - 1,
             .can_reset = true,
             .may_spin = false,
             .real_time = real_time};
}

CpuDevice::~CpuDevice() { stop(); }

void CpuDevice::stop() {
    shared_.stopping.store(true, std::memory_order_seq_cst);
    shared_.signals.work(UINT32_MAX);
    workers_.clear();
}

std::shared_ptr<DeviceModel> CpuDevice::load(const ModelSpec& spec) {
    auto model = std::make_shared<CpuModel>(spec, options_.isa.operators);
    std::lock_guard lock(load_);
    for (auto& worker : workers_)
        worker->fill_scratch(model->scratch_bytes);
    return model;
}

std::unique_ptr<Context> CpuDevice::make_context(std::shared_ptr<DeviceModel> model) {
    return std::make_unique<CpuContext>(std::static_pointer_cast<const CpuModel>(std::move(model)),
                                        shared_.expectation);
}

void CpuDevice::launch(QueueId id, const Window& window) {
    CpuQueue& queue = queues_[id];
    CpuContext& context = own(*window.context);
    CpuWindow& slot = queue.window(window.mark);
    const uint32_t first = std::max(window.first, context.kernels_done());
    const bool stale = window.preemptible && window.epoch != queue.epoch();
    const bool runs = first < window.last && !stale;
    context.bind(window.binding);
    slot.context = &context;
    slot.first = first;
    slot.last = window.last;
    slot.epoch = window.epoch;
    slot.preemptible = window.preemptible;
    slot.finish_blocks = window.finish_blocks;
    slot.split = window.split;
    slot.shielded = kNoKernel;
    queue.launched(window.mark);
    if (!runs) {
        slot.open_closed(window.mark);
        shared_.retire(queue);
        return;
    }
    // Windows of one context may follow each other: only one that begins at the first unfinished kernel is a new try.
    if (first == context.kernels_done() && context.begin_again(first, options_.shield_after))
        slot.shielded = first;
    const Claim claim = context.first_claim(first, slot.runs_to_end(first));
    slot.open(window.mark, claim.pack(), window.split);
    shared_.signals.work(window.split == kNoSplit ? claim.blocks : UINT32_MAX);
    if (id == kRealTimeQueue) {
        // First whoever waits for this thread's own processor. The others see the new epoch meanwhile and raise themselves,
        // where nobody displaced them: one system call less before this thread gives its processor away.
        const uint64_t now = now_ns();
        const int here = sched_getcpu();
        for (const bool displaced : {true, false})
            for (uint32_t i = 0; i < workers_.size() - window.split; i++)
                if ((workers_[i]->cpu() == here) == displaced)
                    workers_[i]->urge(now);
    }
}

void CpuDevice::write_epoch(QueueId id, uint32_t epoch) {
    queues_[id].write_epoch(epoch);
    shared_.retire(queues_[id]);
}

uint32_t CpuDevice::retired(QueueId id) const { return seen_[id] = queues_[id].retired(); }

uint32_t CpuDevice::kernels_done(const Context& context) const { return own(context).kernels_done(); }

uint64_t CpuDevice::progress(const Context& context) const { return own(context).progress(); }

void CpuDevice::clear_record(Context& context) { own(context).clear(); }

bool CpuDevice::arm() {
    shared_.signals.arm();
    // SYNC ARM: a mark stored before this look shows here; one stored after it finds the device armed.
    for (size_t queue = 0; queue < queues_.size(); queue++)
        if (queues_[queue].retired() != seen_[queue])
            return false;
    return true;
}

void CpuDevice::expect(Context* context, uint64_t until_ns) {
    if (shared_.spin_ns == 0)
        return;  // workers that wait for each other on one processor had better sleep
    shared_.expectation->set(static_cast<CpuContext*>(context), until_ns);
    if (until_ns != 0)
        shared_.signals.work(UINT32_MAX);
}

uint64_t CpuDevice::now_ns() const { return monotonic_ns(); }

uint32_t CpuDevice::statistics(WorkerStatistics* units, uint32_t room) const {
    const uint32_t count = std::min(room, static_cast<uint32_t>(workers_.size()));
    for (uint32_t i = 0; i < count; i++)
        units[i] = workers_[i]->statistics();
    return count;
}

}  // namespace reef
