// SPDX-License-Identifier: Apache-2.0
// The CPU device: worker threads as compute units, windows and exact preemption (cpu_queue.hpp).
#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cpu_isa.hpp"
#include "cpu_queue.hpp"
#include "cpu_worker.hpp"
#include "device.hpp"

namespace reef {

struct CpuOptions {
    CpuIsa isa;
    uint32_t workers = 0;  // 0: one for each CPU in the affinity mask
    uint32_t best_effort_queues = 8;
    bool realtime = false;      // SCHED_FIFO for real-time blocks, where permitted
    bool exclusive = true;      // DeviceOptions::exclusive
    uint64_t spin_ns = 20'000;  // 0 where there are more workers than CPUs
    // An instance whose blocks were abandoned so often without one of them finishing runs shielded until it is done: a
    // block of it that has begun runs to its end. So each preemption finishes a block of every worker, and costs at most
    // that block's time.
    uint32_t shield_after = 8;
};

class CpuDevice final : public Device {
public:
    explicit CpuDevice(const CpuOptions& options);
    ~CpuDevice() override;  // with nothing in flight that anybody still needs

    const DeviceInfo& info() const override { return info_; }
    std::shared_ptr<DeviceModel> load(const ModelSpec& spec) override;
    using Device::make_context;
    std::unique_ptr<Context> make_context(std::shared_ptr<DeviceModel> model) override;
    void launch(QueueId queue, const Window& window) override;
    void write_epoch(QueueId queue, uint32_t epoch) override;
    uint32_t retired(QueueId queue) const override;
    uint32_t kernels_done(const Context& context) const override;
    uint64_t progress(const Context& context) const override;
    void clear_record(Context& context) override;
    int event_fd() const override { return shared_.signals.event_fd(); }
    bool arm() override;
    uint64_t now_ns() const override;
    void expect(Context* context, uint64_t until_ns) override;
    uint64_t vacated_ns(QueueId queue) const override { return queues_[queue].vacated_ns(); }
    uint32_t statistics(WorkerStatistics* units, uint32_t room) const override;

    // ---- to measure: cpu_vacate.hpp
    uint32_t epoch(QueueId queue) const { return queues_[queue].epoch(); }
    // From now on a worker notes when it leaves the best-effort block that it is in at `now_ns`.
    void ask_who_leaves(uint64_t now_ns) { shared_.asked_ns.store(now_ns, std::memory_order_relaxed); }

private:
    void stop();

    const CpuOptions options_;
    DeviceInfo info_;
    std::vector<CpuQueue> queues_;
    CpuShared shared_;
    std::vector<std::unique_ptr<CpuWorker>> workers_;
    std::mutex load_;                     // scratch grows; loader threads only
    mutable std::vector<uint32_t> seen_;  // engine thread: the mark that retired() last gave, of each queue
};

}  // namespace reef
