// SPDX-License-Identifier: Apache-2.0
// What the scheduler tells the rings, and the execution context that a request holds between the two.
#pragma once
#include <cstdint>

#include "request.hpp"
#include "task.hpp"

namespace reef {

class Completions {
public:
    virtual void launching(Request& request, uint64_t now_ns) = 0;
    virtual void completed(Request& request, int32_t status, uint64_t now_ns) = 0;
    // Best-effort work left the device for a request of the task, which took `ns`.
    virtual void vacated(Task& task, uint64_t ns, uint64_t now_ns) = 0;

protected:
    ~Completions() = default;
};

// From the model's free ones, of which there must be one.
inline void take_context(Device& device, Request& request) {
    request.context = request.model->free_contexts.back();
    request.model->free_contexts.pop_back();
    device.clear_record(*request.context);
}

// Only when no window of the request is in flight.
inline void give_context_back(Request& request) {
    if (request.context) {
        request.model->free_contexts.push_back(request.context);
        request.context = nullptr;
    }
}

// Marks are free-running.
inline bool reached(uint32_t retired, uint32_t mark) { return static_cast<int32_t>(retired - mark) >= 0; }

}  // namespace reef
