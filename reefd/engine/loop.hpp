// SPDX-License-Identifier: Apache-2.0
// The engine thread: what it looks at in each turn, and when and how it sleeps. It takes no lock, allocates nothing, logs
// nothing and calls no Python. Everything it needs is made before it starts or handed to it by commands.
#pragma once
#include <reef_abi.h>

#include <atomic>
#include <cstdint>
#include <vector>

#include "commands.hpp"
#include "device.hpp"
#include "events.hpp"
#include "intrusive.hpp"
#include "ladder.hpp"
#include "policy.hpp"
#include "ring.hpp"
#include "robust.hpp"
#include "scheduler.hpp"
#include "session.hpp"
#include "stuck.hpp"

namespace reef {

struct LoopOptions {
    uint32_t max_sessions = 2000;
    bool own_thread = true;              // false: a test's thread takes the turns (simulated time)
    uint64_t stuck_ns = 10'000'000'000;  // a kernel that finishes no block for so long is stuck
    LadderLimits ladder{};
    SchedulerLimits limits{};
};

struct StopCounts {
    uint64_t finished = 0;  // completed within the time of grace
    uint64_t failed = 0;    // completed with -ESHUTDOWN
    uint64_t kept = 0;      // left to the successor
};

// Free-running, read by any thread.
struct LoopCounters {
    uint64_t turns = 0;  // also the watchdog's sign of life
    uint64_t sleeps = 0;
    uint64_t doorbells = 0;
    uint64_t most_taken = 0;   // entries of best-effort sessions that a single turn took
    uint64_t ladder = 0;       // enum Step
    uint64_t ladder_down = 0;  // steps so far
    uint64_t ladder_up = 0;
    uint64_t allocations = 0;  // on this thread since it started; only where a counting allocator is preloaded
};

class Loop final : private Completions {
public:
    Loop(Device& device, const Policy& policy, const LoopOptions& options);
    ~Loop();
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;

    // ---- control plane, one thread at a time
    void submit(Command& command);
    EventRing& events() { return events_; }
    bool pop_detached(uint32_t& index, int32_t& code);
    RobustWords& robust() { return robust_; }
    const LoopCounters& counters() const { return counters_; }
    const StopCounts& stop_counts() const { return stop_counts_; }  // once the loop ended

    // ---- engine thread
    void begin();  // on the thread that takes the turns
    void run();    // turns until a stop command, then end()
    bool turn();   // false: nothing was to do
    void end();
    bool stopped() const { return stopped_; }
    bool device_released() const { return !scheduler_.in_flight(); }  // once stopped
    // The next moment at which a turn has something to do without anybody ringing.
    uint64_t next_timer_ns() const;
    // Simulated time: what rang since, and the last look before a sleep. False: something came meanwhile.
    void collect_doorbells();
    bool ready_to_sleep();
    void set_realtime(int priority) { fifo_priority_ = priority; }  // what the thread has; 0: not real-time

private:
    using Sessions = List<Session, &Session::watch_link>;

    void launching(Request& request, uint64_t now_ns) override { mark_running(request, now_ns); }
    void completed(Request& request, int32_t status, uint64_t now_ns) override;
    void vacated(Task& task, uint64_t ns, uint64_t now_ns) override;

    bool take_commands(uint64_t now_ns);
    void attach(Session& session, uint64_t now_ns);
    void set_wakeup(Session& session, Command& command);
    void detach(Session& session, int32_t code, uint64_t now_ns);
    void release_leaving();
    void set_spinning(Spinning mode);

    bool serve_real_time(uint64_t now_ns);
    bool serve_best_effort(uint64_t now_ns);
    bool serve_timed(uint64_t now_ns);
    uint32_t serve(Session& session, uint32_t budget, uint64_t now_ns);
    bool hear_announcement(Session& session, uint64_t now_ns);

    void watch(Session& session, Watch how);
    void unwatch(Session& session);
    void open_doorbell(Session& session);
    void close_doorbell(Session& session);
    Sessions* list_of(const Session& session);
    bool arm(Session& session);
    void arm_idle(Sessions& sessions, uint64_t now_ns, uint64_t idle_ns);
    bool arm_all(Sessions& sessions);
    void rang(Session& session, uint64_t now_ns);
    void look_for_faults(uint64_t now_ns);
    void look_for_stuck_device(uint64_t now_ns);
    void follow_ladder(uint64_t now_ns);
    void accuse();

    bool spinning() const;
    void sleep();
    bool wait(uint64_t timeout_ns);  // true: there may be more to collect
    uint64_t sleep_limit_ns(uint64_t now_ns) const;
    bool stopping_turn(uint64_t now_ns);
    void shut_down_sessions(uint64_t now_ns);

    Device& device_;
    const LoopOptions options_;
    EventRing events_;
    Ladder ladder_;
    Scheduler scheduler_;
    RingContext context_;
    RobustWords robust_;

    Spsc<Command*, 16> commands_;
    struct Detached {
        uint32_t index;
        int32_t code;
    };
    Spsc<Detached, 4096> detached_;
    Descriptor command_fd_;
    Descriptor epoll_;

    std::vector<Session*> sessions_;  // by index
    Sessions real_time_;              // Watch::polled
    Sessions best_effort_;            // Watch::polled
    Sessions timed_;                  // Watch::timer
    Sessions leaving_;

    Spinning spinning_ = Spinning::automatic;
    int fifo_priority_ = 0;
    bool throttled_ = true;  // FIFO threads that spin are stopped now and then
    uint64_t last_wait_ns_ = 0;
    uint64_t next_timed_ns_ = 0;
    uint32_t taken_ = 0;  // in this turn, of best-effort sessions
    uint64_t next_look_ns_ = 0;
    uint32_t faults_seen_ = 0;
    StuckWatch stuck_;
    bool stuck_reported_ = false;

    bool stopping_ = false;
    bool shut_down_ = false;
    bool stopped_ = false;
    bool keep_sessions_ = false;
    uint64_t stop_deadline_ns_ = 0;
    StopCounts stop_counts_;
    LoopCounters counters_;
    uint64_t allocations_before_ = 0;
};

}  // namespace reef
