// SPDX-License-Identifier: Apache-2.0
// One request: the engine's private half of a slot. Everything here comes from checked copies.
#pragma once
#include <cstdint>

#include "device.hpp"
#include "intrusive.hpp"

namespace reef {

struct Session;
struct Task;
struct TaskModel;

enum class Phase : uint8_t {
    idle,     // no request in this slot
    waiting,  // accepted, nothing launched
    started,  // holds an execution context
};

// The oldest window in flight on a queue; no request: there is none.
struct Oldest {
    struct Request* request = nullptr;
    uint32_t mark = 0;
    bool stale = false;
};

struct Request {
    Session* session = nullptr;
    Task* task = nullptr;
    TaskModel* model = nullptr;
    uint32_t slot = 0;
    Phase phase = Phase::idle;
    bool replayed = false;
    bool alone = false;  // it was on a device whose daemon died: this time nothing else is there with it
    uint16_t preemptions = 0;

    uint32_t generation = 0;  // of the slot's last accepted request
    uint64_t cq_index = 0;    // of its completion, in 64 bits; valid when generation != 0 and idle
    uint64_t arrival = 0;     // order among all requests of the engine
    uint64_t sequence = 0;
    uint64_t user_data = 0;
    uint32_t payload_crc = 0;  // of the inputs, where the task has one
    uint64_t deadline_ns = 0;  // absolute; 0: none
    uint64_t accept_ns = 0;
    uint64_t start_ns = 0;
    int32_t priority = 0;

    // Set where a started request is to end otherwise once the device let go of it: negative errno.
    int32_t ending = 0;
    Context* context = nullptr;
    Binding binding{};
    QueueId queue = 0;       // where its windows in flight are
    uint32_t in_flight = 0;  // windows launched and not retired
    uint32_t launched = 0;   // kernels [0, launched) are done or in flight
    bool stale = false;      // its windows in flight were invalidated
    bool served = false;     // one of those had begun

    // Best effort: how often in a row it was preempted in which kernel instance.
    uint32_t abandonments = 0;
    uint32_t abandoned_kernel = 0;

    Link<Request> session_link;       // Session::unstarted
    Link<Request> queue_link;         // Scheduler's retries, TaskModel::waiting, TaskModel::paused or Task::started
    Link<Request> landing_link;       // Landings
    HeapNode<Request> order_node;     // real time: the order of execution
    HeapNode<Request> deadline_node;  // best effort: the next deadline
};

}  // namespace reef
