// SPDX-License-Identifier: Apache-2.0
// The scheduling class of one worker, without a device around it.
#include <unistd.h>

#include <thread>

#include "clock.hpp"
#include "cpu_realtime.hpp"
#include "scenarios.hpp"

namespace stress {

using namespace reef;

namespace {

constexpr int kPriority = 5;
constexpr uint64_t kLong = 10'000'000'000;  // more than any purse holds

// A thread that does as it is told, one step at a time, or changes its class as fast as it can.
class Worker {
public:
    enum Step { none, real_time, best_effort, exhaust, alternate, end };

    Worker() : thread_([this] { main(); }) { wait(); }
    ~Worker() {
        begin(end);
        thread_.join();
    }
    void begin(Step step) {
        wait();
        done_ = false;
        alternating_ = step == alternate;
        step_ = step;
    }
    void perform(Step step) {
        begin(step);
        wait();
    }
    void stop_alternating() {
        alternating_ = false;
        wait();
    }
    bool permitted() const { return permitted_; }
    int policy() const { return sched_getscheduler(id_); }
    void urge(uint64_t now_ns) { scheduling_.load()->urge(now_ns); }

private:
    void main() {
        RealtimeThread own(monotonic_ns());
        permitted_ = own.probe(kPriority);
        id_ = gettid();
        scheduling_ = &own;
        for (done_ = true;;) {
            const Step step = step_;
            if (step == end)
                return;
            if (step == real_time || step == exhaust)
                own.enter_real_time(monotonic_ns());
            if (step == exhaust)
                own.spent(monotonic_ns() + kLong);
            if (step == best_effort)
                own.enter_best_effort();
            while (step == alternate && alternating_) {
                own.enter_real_time(monotonic_ns());
                own.enter_best_effort();
            }
            if (step != none) {
                step_ = none;
                done_ = true;
            }
            std::this_thread::sleep_for(std::chrono::microseconds(20));  // in FIFO: the other may have this processor
        }
    }
    void wait() const {
        while (!done_)
            std::this_thread::yield();
    }

    std::atomic<bool> permitted_ = false;
    std::atomic<pid_t> id_ = 0;
    std::atomic<RealtimeThread*> scheduling_ = nullptr;
    std::atomic<Step> step_ = none;
    std::atomic<bool> alternating_ = false;
    std::atomic<bool> done_ = false;
    std::thread thread_;
};

}  // namespace

// Urged while it does anything, a worker is in FIFO, and out of it before its next best-effort block; not with an empty
// purse.
void urged(const Arguments& arguments) {
    for (uint32_t round = 0; round < arguments.rounds; round++) {
        Worker worker;
        if (!worker.permitted()) {
            std::puts("SCHED_FIFO is not permitted here: run as root, or with RLIMIT_RTPRIO");
            std::exit(77);
        }
        worker.perform(Worker::real_time);
        CHECK(worker.policy() == SCHED_FIFO);
        worker.perform(Worker::best_effort);
        CHECK(worker.policy() == SCHED_OTHER);
        worker.urge(monotonic_ns());
        CHECK(worker.policy() == SCHED_FIFO);
        worker.perform(Worker::best_effort);
        CHECK(worker.policy() == SCHED_OTHER);

        worker.begin(Worker::alternate);
        for (uint32_t i = 0; i < 2000; i++)
            worker.urge(monotonic_ns());
        worker.stop_alternating();
        worker.perform(Worker::best_effort);
        CHECK(worker.policy() == SCHED_OTHER);
        worker.urge(monotonic_ns());
        CHECK(worker.policy() == SCHED_FIFO);

        worker.perform(Worker::exhaust);
        CHECK(worker.policy() == SCHED_OTHER);
        worker.urge(monotonic_ns() + kLong);
        CHECK(worker.policy() == SCHED_OTHER);
        worker.urge(monotonic_ns() + 3 * kLong);
        CHECK(worker.policy() == SCHED_FIFO);
    }
}

}  // namespace stress
