// SPDX-License-Identifier: Apache-2.0
#include "cpu_vacate.hpp"

#include <algorithm>

#include "runner.hpp"

namespace reef {

VacateProbe::VacateProbe(CpuDevice& device, const Load& best_effort, const Load& real_time)
    : device_(device), best_effort_(best_effort), real_time_(real_time),
      real_time_context_(device.make_context(real_time.model)), mark_(device.retired(kQueue)),
      real_time_mark_(device.retired(kRealTimeQueue)) {
    for (Request& request : requests_)
        request = {device.make_context(best_effort.model), mark_};
}

std::vector<WorkerStatistics> VacateProbe::statistics() const {
    std::vector<WorkerStatistics> units(device_.info().compute_units);
    device_.statistics(units.data(), static_cast<uint32_t>(units.size()));
    return units;
}

bool VacateProbe::in_flight(const Request& request) const {
    return static_cast<int32_t>(request.mark - device_.retired(kQueue)) > 0;
}

void VacateProbe::launch(Request& request) {
    const uint32_t kernels = best_effort_.model->kernels();
    if (device_.kernels_done(*request.context) == kernels)
        device_.clear_record(*request.context);
    request.mark = ++mark_;
    device_.launch(kQueue, {.context = request.context.get(),
                            .binding = best_effort_.binding,
                            .first = device_.kernels_done(*request.context),
                            .last = kernels,
                            .epoch = epoch_,
                            .preemptible = options_.leaving <= Leaving::at_block_end,
                            .mark = request.mark,
                            .finish_blocks = options_.leaving == Leaving::at_block_end});
}

void VacateProbe::keep_busy_until(uint64_t until_ns) {
    for (;;) {
        // Where requests are waited for, one at a time: real-time work goes before those that have not begun.
        while (!in_flight(requests_[0]) && (options_.leaving != Leaving::at_request_end || !in_flight(requests_[1]))) {
            launch(requests_[0]);
            std::swap(requests_[0], requests_[1]);
        }
        const uint64_t now = device_.now_ns();
        if (now >= until_ns)
            return;
        device_.retired(kRealTimeQueue);
        sleep_on(device_, until_ns - now);
    }
}

void VacateProbe::wait(QueueId queue, uint32_t mark) {
    while (device_.retired(queue) != mark) {
        device_.retired(queue == kQueue ? kRealTimeQueue : kQueue);  // arm() asks for what was not looked at
        sleep_on(device_);
    }
}

VacateSample VacateProbe::come() {
    const std::vector<WorkerStatistics> before = statistics();
    const uint64_t called_ns = device_.now_ns();
    device_.ask_who_leaves(called_ns);
    uint64_t left_ns = called_ns;
    if (options_.leaving <= Leaving::at_block_end)
        device_.write_epoch(kQueue, ++epoch_);
    if (options_.leaving == Leaving::at_request_end) {
        wait(kQueue, mark_);
        left_ns = device_.now_ns();
    }
    device_.clear_record(*real_time_context_);
    device_.launch(kRealTimeQueue, {.context = real_time_context_.get(),
                                    .binding = real_time_.binding,
                                    .first = 0,
                                    .last = real_time_.model->kernels(),
                                    .epoch = 0,
                                    .preemptible = false,
                                    .mark = ++real_time_mark_});
    const uint64_t own_ns = device_.now_ns() - called_ns;
    wait(kRealTimeQueue, real_time_mark_);
    wait(kQueue, mark_);
    const std::vector<WorkerStatistics> after = statistics();
    uint64_t redone = 0;
    for (size_t i = 0; i < after.size(); i++) {
        left_ns = std::max(left_ns, after[i].left_ns);
        redone = std::max(redone, after[i].abandoned - before[i].abandoned);
    }
    return {left_ns - called_ns, own_ns, 0, static_cast<uint32_t>(redone)};
}

void VacateProbe::run(std::span<VacateSample> samples, const VacateOptions& options) {
    options_ = options;
    std::mt19937_64 random(options.seed);
    // An epoch that no window of this queue had, whoever used it before.
    device_.write_epoch(kQueue, epoch_ = device_.epoch(kQueue) + 1);
    for (VacateSample& sample : samples) {
        const uint64_t due_ns = device_.now_ns() + random() % (options.within_ns + 1);
        keep_busy_until(due_ns);
        const uint64_t late_ns = device_.now_ns() - due_ns;
        sample = come();
        sample.timer_ns = late_ns;
    }
}

}  // namespace reef
