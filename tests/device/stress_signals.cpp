// SPDX-License-Identifier: Apache-2.0
// Scenarios about waking alone, without a device around it: sleeping workers, and the engine thread's descriptor. A lost
// wake-up shows as a program that does not end.
#include <poll.h>
#include <sched.h>

#include <thread>

#include "scenarios.hpp"

namespace stress {

using namespace reef;

namespace {

// Reacts within nanoseconds while the other side is running, and gives way where there are more threads than CPUs.
template <class Done> void wait_until(const Done& done) {
    for (uint32_t i = 0; !done(); i++)
        if (i > 2'000)
            sched_yield();
}

}  // namespace

// A ticket is put down at the very moment when the worker that took the last one goes to sleep.
void sleeping(const Arguments& arguments) {
    CpuSignals signals;
    std::atomic<uint32_t> tickets = 0, taken = 0;
    std::atomic<bool> over = false;
    std::mt19937_64 random(arguments.seed);
    std::vector<std::thread> workers;
    for (uint32_t i = 0; i < arguments.workers; i++) {
        workers.emplace_back([&] {
            while (!over) {
                signals.sleep([&] { return tickets != 0 || over; });
                uint32_t left = tickets;
                while (left != 0 && !tickets.compare_exchange_weak(left, left - 1)) {
                }
                if (left != 0)
                    taken++;
            }
        });
    }
    uint32_t put = 0;
    for (uint32_t round = 0; round < 100 * arguments.rounds; round++) {
        const uint64_t pause = random() % 200;
        for (uint64_t i = 0; i < pause; i++)
            std::atomic_signal_fence(std::memory_order_seq_cst);
        const uint32_t batch = 1 + static_cast<uint32_t>(random() % arguments.workers);
        tickets += batch;
        signals.work(batch);
        put += batch;
        wait_until([&] { return taken == put; });
    }
    over = true;
    signals.work(UINT32_MAX);
    for (std::thread& worker : workers)
        worker.join();
}

// A mark is stored at the very moment when the engine thread arms the device.
void arming(const Arguments& arguments) {
    CpuSignals signals;
    std::atomic<uint32_t> mark = 0, seen = 0;
    const uint32_t last = 200 * arguments.rounds;
    std::thread worker([&] {
        std::mt19937_64 random(arguments.seed);
        for (uint32_t next = 1; next <= last; next++) {
            wait_until([&] { return seen == next - 1; });
            const uint64_t pause = random() % 100;
            for (uint64_t i = 0; i < pause; i++)
                std::atomic_signal_fence(std::memory_order_seq_cst);
            mark = next;
            signals.retired();
        }
    });
    for (uint32_t known = 0; known != last;) {
        if (mark == known) {
            signals.arm();
            if (mark == known) {
                pollfd event{signals.event_fd(), POLLIN, 0};
                CHECK(poll(&event, 1, 60'000) == 1);
            }
        }
        known = mark;
        seen = known;
    }
    worker.join();
}

}  // namespace stress
