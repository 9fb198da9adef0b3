// SPDX-License-Identifier: Apache-2.0
// Turns, sleep and stop. What concerns single sessions is in loop_sessions.cpp.
#include "loop.hpp"

#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>

#include "sigbus.hpp"
#include "sync.hpp"

// Defined by an allocator that tests preload (tests/engine/count_allocations.c): allocations of the calling thread.
extern "C" __attribute__((weak)) uint64_t reef_thread_allocations();

namespace reef {
namespace {

constexpr uint64_t kMillisecond = 1'000'000;
constexpr uint32_t kBestEffortBudget = 64;          // entries a turn, of all best-effort sessions together: those
                                                    // that ring, and as many of those looked at by timer
constexpr uint64_t kLookNs = 20'000;                // how often a busy or spinning engine looks at the doorbells
constexpr uint64_t kTimedNs = 5 * kMillisecond;     // how often sessions without a doorbell are looked at
constexpr uint64_t kSpinIdleNs = 2 * kMillisecond;  // a spinning engine stops polling a session that is idle
// Real-time sessions are polled for longer, so that a client of a few requests a second needs no doorbell, which is looked
// at every kLookNs only: at 200 requests a second that were 10 us of each. Two words of each session are read in a turn,
// which stay in the cache while nobody writes them; where more than these are polled, the idle ones have to ring.
constexpr uint64_t kSpinRealTimeNs = 2'000 * kMillisecond;
constexpr uint32_t kMostPolled = 64;
constexpr uint64_t kLongestSleepNs = 100 * kMillisecond;  // the watchdog sees the engine turn
constexpr uint64_t kDrainNs = 5'000 * kMillisecond;  // a stop waits this long for the device after the time of grace

constexpr uint64_t kCommandTag = UINT64_MAX;
constexpr uint64_t kDeviceTag = UINT64_MAX - 1;

bool fifo_is_throttled() {
    long runtime_us = 0;
    if (std::FILE* file = std::fopen("/proc/sys/kernel/sched_rt_runtime_us", "re")) {
        if (std::fscanf(file, "%ld", &runtime_us) != 1) {
            runtime_us = 0;
        }
        std::fclose(file);
    }
    return runtime_us >= 0;
}

}  // namespace

Loop::Loop(Device& device, const Policy& policy, const LoopOptions& options)
    : device_(device), options_(options), ladder_(events_, options.ladder),
      scheduler_(device, policy, *this, options.limits), context_{device, scheduler_, events_},
      robust_(options.max_sessions), command_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      epoll_(epoll_create1(EPOLL_CLOEXEC)), sessions_(options.max_sessions), throttled_(fifo_is_throttled()),
      stuck_(device.info().queues, options.stuck_ns, 2 * kLongestSleepNs) {
    // Everything in this epoll is edge-triggered and never read.
    epoll_event event{.events = EPOLLIN | EPOLLET, .data = {.u64 = kCommandTag}};
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, command_fd_.get(), &event);
    if (device_.event_fd() >= 0) {
        event.data.u64 = kDeviceTag;
        epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, device_.event_fd(), &event);
    }
}

Loop::~Loop() = default;

void Loop::submit(Command& command) {
    commands_.push(&command);  // has room: the caller waits for each command
    eventfd_write(command_fd_.get(), 1);
    if (!options_.own_thread) {
        turn();
    }
    command.taken.wait(0, std::memory_order_acquire);
}

bool Loop::pop_detached(uint32_t& index, int32_t& code) {
    Detached detached;
    if (!detached_.pop(detached)) {
        return false;
    }
    index = detached.index;
    code = detached.code;
    return true;
}

void Loop::begin() {
    if (options_.own_thread) {
        robust_.adopt_thread();
    }
    scheduler_.begin();
    faults_seen_ = sigbus::faults();
    if (reef_thread_allocations) {
        allocations_before_ = reef_thread_allocations();
    }
}

void Loop::run() {
    while (!stopped_) {
        if (!turn() && !stopped_) {
            if (spinning()) {
                sync::pause();
            } else {
                sleep();
            }
        }
    }
    end();
}

void Loop::end() {
    for (Session* session : sessions_) {
        if (session && session->attached) {
            session->attached = false;
            if (options_.own_thread) {
                robust_.withdraw(session->index);
            } else {
                sync::store_release(session->hot->liveness, 0u);
            }
        }
    }
    if (options_.own_thread) {
        robust_.leave_thread();
    }
}

// ---------------------------------------------------------------- a turn

bool Loop::turn() {
    uint64_t now_ns = device_.now_ns();  // only ever moves forward: the scheduler gives out the time between two calls
    sync::add_relaxed<uint64_t>(counters_.turns, 1);
    if (reef_thread_allocations) {
        sync::store_relaxed(counters_.allocations, reef_thread_allocations() - allocations_before_);
    }
    context_.payload_bytes = 0;
    taken_ = 0;
    bool busy = take_commands(now_ns);
    if (now_ns - last_wait_ns_ >= kLookNs) {
        wait(0);
        now_ns = last_wait_ns_;
    }
    if (sigbus::faults() != faults_seen_) {
        look_for_faults(now_ns);
    }
    if (stopping_) {
        busy |= stopping_turn(now_ns);
    } else {
        if (serve_real_time(now_ns)) {
            scheduler_.dispatch(now_ns);
            busy = true;
        }
        if (scheduler_.in_flight()) {
            now_ns = device_.now_ns();
            busy |= scheduler_.progress(now_ns);
        }
        busy |= serve_best_effort(now_ns);
        busy |= serve_timed(now_ns);
        scheduler_.dispatch(now_ns);
    }
    if (!leaving_.empty()) {
        release_leaving();
    }
    if (taken_ > counters_.most_taken) {
        sync::store_relaxed<uint64_t>(counters_.most_taken, taken_);
    }
    follow_ladder(now_ns);
    if (now_ns >= next_look_ns_) {
        next_look_ns_ = now_ns + kLongestSleepNs;
        look_for_stuck_device(now_ns);
    }
    return busy;
}

bool Loop::serve_real_time(uint64_t now_ns) {
    bool any = false;
    uint32_t polled = 0;
    for (Session* session = real_time_.front(); session; ++polled) {
        Session* next = Sessions::next(*session);
        any |= hear_announcement(*session, now_ns);
        any |= serve(*session, session->entries, now_ns) != 0;
        session = next;
    }
    if (spinning()) {
        arm_idle(real_time_, now_ns, polled <= kMostPolled ? kSpinRealTimeNs : kSpinIdleNs);
    }
    return any;
}

bool Loop::serve_best_effort(uint64_t now_ns) {
    uint32_t budget = kBestEffortBudget;
    for (Session* session = best_effort_.front(); session && budget != 0;) {
        Session* next = Sessions::next(*session);
        const uint32_t taken = serve(*session, budget, now_ns);
        budget -= taken;
        if (taken != 0 && session->watch == Watch::polled) {
            // Whoever was served goes to the end of the line, for when the budget does not suffice for all.
            best_effort_.remove(*session);
            best_effort_.push_back(*session);
        }
        session = next;
    }
    if (spinning()) {
        arm_idle(best_effort_, now_ns, kSpinIdleNs);
    }
    return budget != kBestEffortBudget;
}

bool Loop::serve_timed(uint64_t now_ns) {
    if (timed_.empty() || now_ns < next_timed_ns_) {
        return false;
    }
    next_timed_ns_ = now_ns + kTimedNs;
    bool any = false;
    uint32_t budget = kBestEffortBudget;
    for (Session* session = timed_.front(); session;) {
        Session* next = Sessions::next(*session);
        const bool real_time = session->task.spec.real_time;
        const uint32_t taken = serve(*session, real_time ? session->entries : budget, now_ns);
        any |= taken != 0;
        budget -= real_time ? 0 : taken;
        if (!real_time && taken != 0 && session->watch == Watch::timer) {
            // A client may have made itself one of these by its doorbell. Whoever was served waits for the others.
            timed_.remove(*session);
            timed_.push_back(*session);
        }
        if (session->doorbell && session->penalty_until_ns <= now_ns && session->watch == Watch::timer) {
            open_doorbell(*session);
            watch(*session, Watch::polled);
        }
        session = next;
    }
    return any;
}

// ---------------------------------------------------------------- sleep

bool Loop::spinning() const {
    if (spinning_ == Spinning::automatic) {
        return device_.info().may_spin && scheduler_.real_time_running() && !(fifo_priority_ != 0 && throttled_);
    }
    return spinning_ == Spinning::always;
}

uint64_t Loop::next_timer_ns() const {
    uint64_t next = std::min(scheduler_.next_timer_ns(), ladder_.next_ns());
    if (!timed_.empty()) {
        next = std::min(next, next_timed_ns_);
    }
    return stopping_ ? std::min(next, stop_deadline_ns_) : next;
}

uint64_t Loop::sleep_limit_ns(uint64_t now_ns) const {
    const uint64_t next = next_timer_ns();
    uint64_t limit = std::min(kLongestSleepNs, next > now_ns ? next - now_ns : 0);
    if (device_.event_fd() < 0 && (scheduler_.in_flight() || scheduler_.transferring())) {
        const bool soon = scheduler_.real_time_running() || scheduler_.transferring();
        limit = std::min(limit, soon ? 20'000 : options_.limits.window_ns / 2);
    }
    return limit;
}

void Loop::sleep() {
    // While stopping, new entries are nobody's concern.
    if ((!stopping_ && !ready_to_sleep()) || (scheduler_.in_flight() && !device_.arm())) {
        return;
    }
    sync::add_relaxed<uint64_t>(counters_.sleeps, 1);
    wait(sleep_limit_ns(device_.now_ns()));
}

// Waits for doorbells, the device and commands; those that rang are polled from now on.
bool Loop::wait(uint64_t timeout_ns) {
    std::array<epoll_event, 64> events;
    int count;
    if (timeout_ns == 0) {
        count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0);
    } else {
        const timespec timeout{static_cast<time_t>(timeout_ns / 1'000'000'000),
                               static_cast<long>(timeout_ns % 1'000'000'000)};
        count = static_cast<int>(
            syscall(SYS_epoll_pwait2, epoll_.get(), events.data(), events.size(), &timeout, nullptr, 0));
        if (count < 0 && errno == ENOSYS) {  // before Linux 5.11
            const auto milliseconds = static_cast<int>((timeout_ns + kMillisecond - 1) / kMillisecond);
            count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), milliseconds);
        }
    }
    last_wait_ns_ = device_.now_ns();
    for (int i = 0; i < count; ++i) {
        const uint64_t tag = events[static_cast<size_t>(i)].data.u64;
        if (tag < sessions_.size() && sessions_[tag]) {
            rang(*sessions_[tag], last_wait_ns_);
        }
    }
    return count == static_cast<int>(events.size());
}

void Loop::collect_doorbells() {
    while (wait(0)) {
    }
}

bool Loop::ready_to_sleep() {
    const bool pending = arm_all(real_time_);
    return !arm_all(best_effort_) && !pending;
}

// Sets need_wakeup, then looks once more: an entry published before the client could see the flag would be lost.
bool Loop::arm(Session& session) {
    sync::store_relaxed(session.hot->need_wakeup, 1u);
    sync::full_fence();  // SYNC POINT need-wakeup
    const bool announced =
        session.task.spec.real_time && sync::load_relaxed(session.client->announce) != session.announced;
    if (has_entries(session) || announced) {
        sync::store_relaxed(session.hot->need_wakeup, 0u);
        return false;
    }
    watch(session, Watch::doorbell);
    return true;
}

bool Loop::arm_all(Sessions& sessions) {
    bool pending = false;
    for (Session* session = sessions.front(); session;) {
        Session* next = Sessions::next(*session);
        pending |= !arm(*session);
        session = next;
    }
    return pending;
}

void Loop::arm_idle(Sessions& sessions, uint64_t now_ns, uint64_t idle_ns) {
    for (Session* session = sessions.front(); session;) {
        Session* next = Sessions::next(*session);
        if (now_ns - session->idle_since_ns > idle_ns) {
            arm(*session);
        }
        session = next;
    }
}

void Loop::set_spinning(Spinning mode) {
    if (fifo_priority_ != 0 && throttled_) {
        // A spinning FIFO thread would be stopped for 50 ms in each second.
        const sched_param param{.sched_priority = mode == Spinning::always ? 0 : fifo_priority_};
        pthread_setschedparam(pthread_self(), mode == Spinning::always ? SCHED_OTHER : SCHED_FIFO, &param);
    }
    spinning_ = mode;
}

// ---------------------------------------------------------------- stop

// First what is accepted may finish; then either everything is left to the successor or it ends with -ESHUTDOWN; and
// then the device has to let go of all memory. A device that does not is given up after a while: the process ends.
bool Loop::stopping_turn(uint64_t now_ns) {
    const bool busy = scheduler_.in_flight() && scheduler_.progress(now_ns);
    if (!shut_down_) {
        const bool outstanding = std::any_of(sessions_.begin(), sessions_.end(), [](const Session* session) {
            return session && session->outstanding != 0;
        });
        if (outstanding && now_ns < stop_deadline_ns_) {
            scheduler_.dispatch(now_ns);
            return busy;
        }
        shut_down_ = true;
        stop_deadline_ns_ = now_ns + kDrainNs;
        shut_down_sessions(now_ns);
    }
    scheduler_.drain();
    if (scheduler_.in_flight() && now_ns < stop_deadline_ns_) {
        return busy;
    }
    for (const Session* session : sessions_) {
        stop_counts_.kept += session && session->attached ? session->outstanding : 0;
    }
    stopped_ = true;
    return true;
}

void Loop::shut_down_sessions(uint64_t now_ns) {
    scheduler_.preempt();
    if (keep_sessions_) {
        return;
    }
    for (Session* session : sessions_) {
        if (session && !session->frozen) {
            consume(context_, *session, session->entries, now_ns);
            freeze(context_, *session, -ESHUTDOWN, now_ns);
        }
    }
}

// Between two turns of the scheduler, never from inside it: observations come while it completes requests.
void Loop::follow_ladder(uint64_t now_ns) {
    ladder_.tick(now_ns);
    const auto step = static_cast<uint64_t>(ladder_.step());
    if (step != counters_.ladder) {
        sync::store_relaxed(counters_.ladder, step);
        sync::store_relaxed(counters_.ladder_down, ladder_.down());
        sync::store_relaxed(counters_.ladder_up, ladder_.up());
        scheduler_.set_step(ladder_.step());
        scheduler_.dispatch(now_ns);
    }
}

void Loop::look_for_stuck_device(uint64_t now_ns) {
    if (const char* words = device_.fault()) {
        if (!stuck_reported_) {
            accuse();
            events_.push(
                {EventKind::device_stuck, -EIO, now_ns, 0, 0, {UINT64_MAX, reinterpret_cast<uintptr_t>(words)}});
        }
        stuck_reported_ = true;
        return;
    }
    const StuckWatch::Report report = stuck_.look(scheduler_, device_, now_ns);
    if (report.finding == StuckWatch::Finding::slow && report.queue != kRealTimeQueue) {
        scheduler_.relaunch(report.queue);
    }
    const bool stuck = report.finding == StuckWatch::Finding::stuck;
    if (stuck && !stuck_reported_) {
        const Request& request = *report.request;
        blame(request);
        events_.push(
            {EventKind::device_stuck,
             -EIO,
             now_ns,
             request.session->id,
             request.task->id,
             {report.queue, report.stalled_ns / kMillisecond, request.slot, device_.kernels_done(*request.context)}});
    }
    stuck_reported_ = stuck;
}

}  // namespace reef
