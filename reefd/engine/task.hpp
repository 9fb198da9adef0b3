// SPDX-License-Identifier: Apache-2.0
// A task as the engine knows it: its models with their execution contexts and learned kernel costs, its counters.
// Made by the control plane's thread, afterwards changed by the engine thread only.
#pragma once
#include <reef_abi.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "device.hpp"
#include "histogram.hpp"
#include "intrusive.hpp"
#include "kernel_times.hpp"
#include "ladder.hpp"
#include "padding.hpp"
#include "request.hpp"

namespace reef {

struct TaskSpec {
    std::string name;
    bool real_time = false;
    std::vector<std::pair<std::string, std::shared_ptr<DeviceModel>>> models;  // a null model: the echo
    uint32_t slots = 1;
    uint64_t deadline_ns = 0;
    int32_t priority = 0;
    uint32_t weight = 100;
    uint32_t queue_policy = REEF_QUEUE_FAIL;
    bool crc = false;          // entries must carry theirs
    bool payload_crc = false;  // inputs and outputs have one
    uint64_t signature = 0;
    uint32_t contexts = 0;
    bool preemptible = false;            // real time: gives way to more urgent real-time requests
    std::vector<ModelProfile> profiles;  // of each model; empty: of none
    Bounds bounds;                       // promised and watched
};

// One model of a task. Its execution contexts are made beforehand; requests that find none wait.
struct TaskModel {
    std::string name;
    std::shared_ptr<DeviceModel> model;  // null: the echo
    std::vector<ModelTensor> inputs;
    std::vector<ModelTensor> outputs;
    uint64_t input_area = 0;
    uint64_t output_area = 0;
    uint32_t kernels = 0;
    std::vector<std::unique_ptr<Context>> contexts;
    std::vector<Context*> free_contexts;  // capacity for all of them: never grows
    KernelTimes times;
    std::vector<Segment> padding;                 // ModelProfile::padding
    List<Request, &Request::queue_link> waiting;  // best effort, in order of arrival
    List<Request, &Request::queue_link> paused;   // real time: gave way and keep their contexts
};

struct TaskCounters {
    uint64_t accepted = 0;
    uint64_t completed = 0;
    uint64_t failed = 0;
    uint64_t late = 0;
    uint64_t expired = 0;
    uint64_t cancelled = 0;
    uint64_t damaged = 0;  // inputs failed their CRC
    uint64_t replayed = 0;
    uint64_t preempted = 0;
    uint64_t abandoned_windows = 0;
    uint64_t shielded = 0;         // best effort: windows whose blocks, once begun, ran to their end
    uint64_t behind_shielded = 0;  // real time: requests that were launched while such a window left the device
    std::array<uint64_t, kLatencies> broken{};  // how often each bound was, by Latency
    Histogram queueing;                         // accepted -> first launched
    Histogram preemption;                       // real time: arrived -> every best-effort window in flight retired
    Histogram execution;                        // first launched -> completed
    Histogram end_to_end;                       // accepted -> completed
};

struct Task {
    Task(uint32_t id, TaskSpec spec, Device& device);  // EngineFailure where the specification makes no sense

    const uint32_t id;
    const TaskSpec spec;
    std::vector<TaskModel> models;
    TaskCounters counters;
    uint32_t sessions = 0;  // attached; the control plane's count
    int64_t tokens = 0;     // Ladder's

    // Best effort: weighted shares. The task with the least virtual time runs next.
    uint64_t virtual_time = 0;
    HeapNode<Task> share_node;
    List<Request, &Request::queue_link> started;  // hold a context and have kernels left to launch
};

}  // namespace reef
