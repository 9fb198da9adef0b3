// SPDX-License-Identifier: Apache-2.0
// Real-time requests: earliest deadline first, then priority, then arrival; one at a time on the real-time queue.
//
// A model is launched as one window, or as one for each segment of its padding plan. Where its task's manifest says
// `preemptible`, a request gives way to one that is more urgent by deadline or priority: it is launched with checks, its
// windows are invalidated, and it goes on later from its first unfinished kernel, finished blocks kept. It keeps its
// execution context meanwhile, and a request that would need that context lends it its turn.
#pragma once
#include <array>
#include <cstdint>

#include "completions.hpp"
#include "device.hpp"
#include "intrusive.hpp"
#include "landings.hpp"
#include "policy.hpp"
#include "request.hpp"
#include "task.hpp"

namespace reef {

class RealTime {
public:
    RealTime(Device& device, const Policy& policy, Completions& completions)
        : device_(device), policy_(policy), completions_(completions), padding_(policy.pads()), landings_(device) {}
    void begin();

    void submit(Request& request) { waiting_.push(request); }
    // Whether a started request can still be cancelled: it gave way to another.
    bool paused(const Request& request) const { return &request != running_ && !Landings::contains(request); }
    // Now, or when its windows have retired.
    void end(Request& request, int32_t status, uint64_t now_ns);
    void expire(uint64_t now_ns);

    // Launches the next request, where the device is free or gives way. Returns it, or null.
    Request* launch(uint64_t now_ns);
    // Reads retirements and completes what is done. True when something retired.
    bool progress(uint64_t now_ns);

    bool empty() const { return running_ == nullptr && waiting_.empty(); }
    bool running() const { return running_ != nullptr || landing(); }
    bool in_flight() const { return count_ != 0; }
    bool landing() const { return !landings_.empty(); }
    // Whether models leave the compute units of their padding plans aside, from the next launch on.
    void set_padding(bool padding) { padding_ = padding && policy_.pads(); }
    // Compute units that the model which runs, or is next, leaves to best-effort work now.
    uint32_t split() const;
    uint64_t next_deadline_ns() const;
    Oldest oldest() const { return count_ != 0 ? Oldest{at(0).request, at(0).mark, at(0).stale} : Oldest{}; }

private:
    struct Flight {
        Request* request;
        uint32_t mark;
        uint32_t split;
        bool stale;
    };
    static constexpr uint32_t kFlights = 8;

    // More urgent by deadline or priority; arrival() decides among equals.
    static bool more_urgent(const Request& a, const Request& b);
    struct Order {
        bool operator()(const Request& a, const Request& b) const {
            return more_urgent(a, b) || (!more_urgent(b, a) && a.arrival < b.arrival);
        }
    };

    bool checked(const Request& request) const {
        return request.task->spec.preemptible && policy_.checks() != Checks::none;
    }
    Request* next_to_run() const;
    void leave_waiting(Request& request);
    void pause();
    void launch_windows();
    void retired(const Flight& flight, uint64_t now_ns);
    void done(Request& request, uint64_t now_ns);
    void finish(Request& request, int32_t status, uint64_t now_ns);
    Flight& at(uint32_t i) { return flights_[(head_ + i) % kFlights]; }
    const Flight& at(uint32_t i) const { return flights_[(head_ + i) % kFlights]; }

    Device& device_;
    const Policy& policy_;
    Completions& completions_;
    bool padding_;

    Heap<Request, &Request::order_node, Order> waiting_;  // new ones, and those that gave way
    Landings landings_;
    Request* running_ = nullptr;

    uint32_t epoch_ = kFirstEpoch;
    uint32_t mark_ = 0;
    uint32_t head_ = 0;
    uint32_t count_ = 0;
    std::array<Flight, kFlights> flights_{};
};

}  // namespace reef
