// SPDX-License-Identifier: Apache-2.0
// The engine as the control plane drives it: owns the device, the tasks, the sessions and the engine thread. Every call
// may block; none is made on the engine thread. Calls are serialised.
#pragma once
#include <pthread.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "device.hpp"
#include "loop.hpp"
#include "policy.hpp"
#include "simulated_device.hpp"
#include "task.hpp"

namespace reef {

struct EngineOptions {
    std::string device = "cpu";
    uint32_t workers = 0;
    std::string policy = "reef";
    uint32_t max_sessions = 2000;
    bool realtime = true;
    int cpu = -1;                        // pins the engine thread; -1: not
    uint64_t stuck_ns = 10'000'000'000;  // LoopOptions
};

struct AttachRequest {
    uint32_t task;
    uint64_t session_id;
    uint64_t daemon_epoch;
    int c_fd;
    int d_fd;
    int doorbell_fd;
    int socket_fd;
    bool adopt;
};

struct RegionSizes {
    uint64_t c_size;
    uint64_t d_size;
};

struct TaskSnapshot {
    uint32_t id;
    std::string name;
    bool real_time;
    uint32_t sessions;
    TaskCounters counters;
};

struct SessionSnapshot {
    uint64_t id;
    uint32_t task;
    int32_t verdict;
    bool locked;  // its memory cannot be paged out
    reef_stats stats;
};

struct Snapshot {
    LoopCounters loop;
    uint64_t events_dropped;
    std::vector<TaskSnapshot> tasks;
    std::vector<SessionSnapshot> sessions;
};

class Engine {
public:
    explicit Engine(const EngineOptions& options);
    ~Engine();
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    const DeviceInfo& device_info() const { return device_->info(); }
    const std::string& device_kind() const { return options_.device; }
    const char* policy_name() const { return policy_->name(); }
    bool realtime() const { return thread_realtime_.load(); }
    int event_fd() { return loop_->events().fd(); }

    std::shared_ptr<DeviceModel> load(const ModelSpec& spec);
    // One run without a session, before start(): -EBUSY afterwards. Returns its time.
    uint64_t run(const std::shared_ptr<DeviceModel>& model, const Binding& binding, bool preemptible);

    void start();
    StopCounts stop(uint64_t grace_ns, bool keep_sessions);
    uint32_t add_task(const TaskSpec& spec);
    void remove_task(uint32_t task);
    RegionSizes region(uint32_t task);
    // Why the device refused the session's memory, so that it copies tensors; empty: it did not.
    std::string attach(const AttachRequest& request);
    void set_wakeup(uint64_t session_id, int doorbell_fd, int socket_fd);
    void detach(uint64_t session_id, int32_t code);
    void set_spinning(Spinning mode);
    std::vector<EventRecord> poll_events();
    Snapshot snapshot();
    uint64_t turns() const { return sync::load_relaxed(loop_->counters().turns); }  // waits for nothing

    // The simulated device only: this thread takes the engine's turns while `ns` of its time pass.
    // Returns how much real time each turn took, the device's part left out as far as it is not within them.
    std::vector<uint64_t> advance(uint64_t ns);
    std::vector<TraceRecord> take_trace();

private:
    enum class State { made, running, stopped };

    static void* thread_main(void* engine);
    void require_running() const;
    void send(Command& command);
    Task& task_of(uint32_t id);
    Session& session_of(uint64_t id);
    uint32_t free_index() const;
    void forget_sessions();
    SimulatedDevice& simulation() const;

    const EngineOptions options_;
    std::unique_ptr<Policy> policy_;
    std::unique_ptr<Device> device_;
    SimulatedDevice* simulated_ = nullptr;  // device_, if it is that
    std::unique_ptr<Loop> loop_;

    std::mutex mutex_;
    State state_ = State::made;
    pthread_t thread_{};
    std::atomic<uint32_t> thread_ready_{0};
    std::atomic<bool> thread_realtime_{false};
    std::atomic<uint32_t> next_task_{1};
    std::map<uint32_t, std::unique_ptr<Task>> tasks_;
    std::map<uint64_t, std::unique_ptr<Session>> sessions_;  // by id
    std::vector<Session*> by_index_;
};

}  // namespace reef
