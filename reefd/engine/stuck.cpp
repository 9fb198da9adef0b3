// SPDX-License-Identifier: Apache-2.0
#include "stuck.hpp"

#include <algorithm>

namespace reef {

StuckWatch::Report StuckWatch::look(const Scheduler& scheduler, const Device& device, uint64_t now_ns) {
    const uint64_t step_ns = std::min(now_ns - last_ns_, longest_step_ns_);
    last_ns_ = now_ns;
    Report worst;
    for (QueueId queue = 0; queue < watched_.size(); ++queue) {
        const Oldest oldest = scheduler.oldest(queue);
        Watched& watched = watched_[queue];
        if (!oldest.request) {
            watched = {};
            continue;
        }
        const uint64_t progress = device.progress(*oldest.request->context);
        if (oldest.mark != watched.mark || progress != watched.progress) {
            watched = {oldest.mark, progress, 0};
            continue;
        }
        if (queue == kRealTimeQueue || oldest.stale || !scheduler.real_time_running()) {
            watched.stalled_ns += step_ns;
        }
        if (watched.stalled_ns > worst.stalled_ns) {
            worst = {Finding::none, queue, oldest.request, watched.stalled_ns};
        }
    }
    if (worst.stalled_ns >= limit_ns_) {
        worst.finding = Finding::stuck;
    } else if (worst.stalled_ns >= limit_ns_ / 2) {
        worst.finding = Finding::slow;
    }
    return worst;
}

}  // namespace reef
