// SPDX-License-Identifier: Apache-2.0
// Which best-effort task is next: start-time fair queueing over tasks by weight (Goyal, Vin, Cheng, SIGCOMM 1996, with
// estimated window times that are corrected once the window is over). A task's virtual time is what it used of the
// device, divided by its weight; the one with the least is next. Under a policy by arrival it is the task whose oldest
// request came first.
#pragma once
#include <cstdint>

#include "device.hpp"
#include "task.hpp"

namespace reef {

class Shares {
public:
    // `units` of the device; `by_arrival`: Policy::by_arrival.
    Shares(uint32_t units, bool by_arrival) : units_(units), by_arrival_(by_arrival) {}

    bool empty() const { return runnable_.empty(); }
    Task& first() const { return *runnable_.top(); }

    // A request was added to the task, or one of its requests ended or was started.
    void refresh(Task& task);
    // It has used `width` compute units for `ns`, or (less than 0) less than it was charged.
    void charge(Task& task, uint64_t width, int64_t ns);
    // It gets a window now: who comes back later starts from here.
    void serve(const Task& task) { now_ = std::max(now_, task.virtual_time); }

    // Out of the order for a moment, and back: for a task that has work, but not for the queue that is looked at.
    void set_aside(Task& task) { runnable_.remove(task); }
    void put_back(Task& task) { runnable_.push(task); }

private:
    struct Less {
        bool operator()(const Task& a, const Task& b) const {
            return a.virtual_time != b.virtual_time ? a.virtual_time < b.virtual_time : a.id < b.id;
        }
    };
    static uint64_t first_arrival(const Task& task);

    const uint32_t units_;
    const bool by_arrival_;
    Heap<Task, &Task::share_node, Less> runnable_;
    uint64_t now_ = 0;
};

}  // namespace reef
