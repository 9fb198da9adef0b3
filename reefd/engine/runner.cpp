// SPDX-License-Identifier: Apache-2.0
#include "runner.hpp"

#include <poll.h>
#include <unistd.h>

#include <algorithm>

namespace reef {

void sleep_on(Device& device, uint64_t longest_ns) {
    if (!device.arm() || device.event_fd() < 0)
        return;
    const timespec timeout{static_cast<time_t>(longest_ns / 1'000'000'000),
                           static_cast<long>(longest_ns % 1'000'000'000)};
    pollfd event{device.event_fd(), POLLIN, 0};
    if (ppoll(&event, 1, &timeout, nullptr) > 0) {
        // Drained here too: arm() leaves alone what a late writer left, which suits those who wait for edges.
        uint64_t count;
        [[maybe_unused]] ssize_t got = read(event.fd, &count, sizeof count);
    }
}

RunReport Runner::run(Context& context, uint32_t kernels, const Binding& binding, const RunOptions& options) {
    options_ = options;
    random_.seed(options.seed);
    report_ = {};
    device_.clear_record(context);
    report_.start_ns = device_.now_ns();
    if (options.preemptible) {
        for (uint32_t kernel : options.interrupt_at) {
            if (device_.kernels_done(context) < kernel)
                window(context, binding, std::min(kernel, kernels), false);
            if (device_.kernels_done(context) < kernels)
                window(context, binding, kernels, true);
        }
        for (uint32_t i = 0; i < options.interrupts && device_.kernels_done(context) < kernels; i++)
            window(context, binding, kernels, true);
    }
    if (device_.kernels_done(context) < kernels)
        window(context, binding, kernels, false);
    while (!device_.deliver(context)) {
        device_.poll(false);
    }
    report_.end_ns = device_.now_ns();
    return report_;
}

void Runner::window(Context& context, const Binding& binding, uint32_t last, bool interrupted) {
    const QueueId queue = options_.preemptible ? queue_ : kRealTimeQueue;
    const uint32_t mark = device_.retired(queue) + 1;
    report_.launches++;
    // An epoch that no window of this queue had: also that of the first launch, whatever ran here before.
    if (options_.preemptible)
        device_.write_epoch(queue, ++epoch_);
    device_.launch(queue, {.context = &context,
                           .binding = binding,
                           .first = device_.kernels_done(context),
                           .last = last,
                           .epoch = epoch_,
                           .preemptible = options_.preemptible,
                           .mark = mark});
    uint64_t written = 0;
    if (interrupted) {
        const uint64_t until = device_.now_ns() + random_() % (options_.within_ns + 1);
        while (device_.now_ns() < until) {
        }
        written = device_.now_ns();
        device_.write_epoch(queue, ++epoch_);
    }
    while (device_.retired(queue) != mark) {
        sleep_on(device_);
    }
    if (interrupted && device_.kernels_done(context) < last) {
        const uint64_t vacated = device_.vacated_ns(queue);
        report_.preempted++;
        if (vacated > written)
            report_.vacated_ns_worst = std::max(report_.vacated_ns_worst, vacated - written);
    }
}

}  // namespace reef
