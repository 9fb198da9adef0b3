// SPDX-License-Identifier: Apache-2.0
// Scenarios about who runs when: classes, queues side by side, wake-ups, scheduling class, allocation.
#include <sched.h>

#include <algorithm>

#include "clock.hpp"
#include "cpu_context.hpp"
#include "scenarios.hpp"

namespace stress {

using namespace reef;

namespace {

// A request of probes on one queue, launched as one window under epoch 0.
struct Once {
    Once(Device& device, const Chain& chain) : chain(chain), slot(chain), context(device.make_context(chain.model)) {}
    uint32_t launch(Device& device, QueueId queue) {
        const uint32_t mark = device.retired(queue) + 1;
        device.launch(queue,
                      {context.get(), slot.binding(), 0, chain.model->kernels(), 0, queue != kRealTimeQueue, mark});
        return mark;
    }
    const Chain& chain;
    Slot slot;
    std::unique_ptr<Context> context;
};

// How many of the instance's first blocks noted a later turn than `turn`. A worker may lose its processor between taking a
// block and the note, so where these blocks were all taken before, every other worker may still owe one.
long begun_after(uint32_t id, uint32_t blocks, uint64_t turn) {
    return std::count_if(records[id].order, records[id].order + blocks, [&](uint64_t order) { return order > turn; });
}

}  // namespace

// Every worker holds a best-effort block when real-time work comes beside it, without an epoch written: no worker begins
// another best-effort block before the last real-time one has begun.
void real_time_first(const Arguments& arguments) {
    CpuDevice device(options(arguments.workers));
    const uint32_t workers = arguments.workers;
    Chain slow = probe_chain(device, 0, 1, 4 * workers, {.held = true});
    Chain fast = probe_chain(device, 1, 2, 2 * workers, {});
    for (uint32_t round = 0; round < arguments.rounds; round++) {
        Once best_effort(device, slow), real_time(device, fast);
        clear_records();
        released = false;
        const uint32_t mark = best_effort.launch(device, 1);
        wait_inside(static_cast<int>(workers));
        const uint32_t real_time_mark = real_time.launch(device, kRealTimeQueue);
        released = true;
        wait_for(device, kRealTimeQueue, real_time_mark);
        check_output(fast, real_time.slot);
        wait_for(device, 1, mark);
        check_output(slow, best_effort.slot);
        std::vector<uint64_t> order(4 * workers);
        std::copy_n(records[0].order, order.size(), order.begin());
        std::sort(order.begin(), order.end());
        CHECK(begun_after(2, 2 * workers, order[workers]) < static_cast<long>(workers));
    }
}

// All workers hold real-time blocks; the best-effort windows behind them become stale: they retire at once, by the engine
// thread alone, and never run.
void stale_behind_real_time(const Arguments& arguments) {
    CpuDevice device(options(arguments.workers));
    const uint32_t workers = arguments.workers;
    Chain held = probe_chain(device, 0, 1, workers, {.held = true});
    Chain chain = probe_chain(device, 1, 1, 4, {});
    for (uint32_t round = 0; round < arguments.rounds; round++) {
        Once real_time(device, held);
        std::vector<std::unique_ptr<Once>> windows;
        clear_records();
        released = false;
        const uint32_t real_time_mark = real_time.launch(device, kRealTimeQueue);
        wait_inside(static_cast<int>(workers));
        uint32_t epoch = 2 * round, mark = device.retired(1);
        device.write_epoch(1, epoch);
        auto launch = [&] {
            windows.push_back(std::make_unique<Once>(device, chain));
            Once& window = *windows.back();
            device.launch(1, {window.context.get(), window.slot.binding(), 0, 1, epoch, true, ++mark});
        };
        for (uint32_t i = 0; i < kQueueDepth; i++)
            launch();
        device.write_epoch(1, epoch + 1);
        CHECK(device.retired(1) == mark);
        launch();  // still under the old epoch
        CHECK(device.retired(1) == mark);
        released = true;
        wait_for(device, kRealTimeQueue, real_time_mark);
        check_output(held, real_time.slot);
        CHECK(begun(1) == 0);
    }
}

// Plain windows on a best-effort queue run to their end, whatever epochs are written.
void plain_window(const Arguments& arguments) {
    CpuDevice device(options(arguments.workers));
    Chain chain = probe_chain(device, 0, 4, 8, {.held = true});
    for (uint32_t round = 0; round < arguments.rounds; round++) {
        // Two windows of one request: one that runs and one behind it, when the epochs are written.
        Once request(device, chain);
        clear_records();
        released = false;
        uint32_t mark = device.retired(1);
        for (uint32_t first : {0u, 2u})
            device.launch(1, {request.context.get(), request.slot.binding(), first, first + 2, round, false, ++mark});
        wait_inside(1);
        device.write_epoch(1, round + 1);
        released = true;
        wait_for(device, 1, mark);
        CHECK(device.kernels_done(*request.context) == 4);
        check_exactly_once(4, 8);
        check_output(chain, request.slot);
    }
}

// A worker that finds no block left in one best-effort queue takes those of another.
void side_by_side(const Arguments& arguments) {
    CpuDevice device(options(arguments.workers));
    Chain held = probe_chain(device, 0, 2, 1, {.held = true});
    Chain chain = probe_chain(device, 2, 3, 5, {});
    for (uint32_t round = 0; round < arguments.rounds; round++) {
        Once first(device, held), second(device, chain);
        clear_records();
        released = false;
        const uint32_t mark = first.launch(device, 1);
        wait_inside(1);
        const uint32_t second_mark = second.launch(device, 2);
        wait_for(device, 2, second_mark);
        check_output(chain, second.slot);
        released = true;
        wait_for(device, 1, mark);
        check_output(held, first.slot);
    }
}

// A real-time window leaves the last workers aside: there blocks of best-effort windows with a split begin, of no others, and
// on no other worker. They are preempted there and go on there; the next real-time window has no split, and none begins.
void splits(const Arguments& arguments) {
    CpuDevice device(options(arguments.workers));
    const uint32_t workers = arguments.workers;
    Chain first = probe_chain(device, 0, 1, 2 * workers, {.held = true});
    Chain second = probe_chain(device, 1, 1, 4 * workers, {.held = true});
    Chain beside = probe_chain(device, 2, 2, 3 * workers, {.held = true});
    Chain unsplit = probe_chain(device, 4, 1, 4, {});
    std::mt19937_64 random(arguments.seed);
    uint32_t epoch = 1;
    for (uint32_t round = 0; round < arguments.rounds; round++) {
        const auto split = static_cast<uint32_t>(1 + random() % (workers - 1));
        Once real_time(device, first), next(device, second), best_effort(device, beside), other(device, unsplit);
        clear_records();
        released = false;
        const uint32_t real_time_mark = device.retired(kRealTimeQueue) + 1;
        uint32_t mark = device.retired(1);
        auto launch = [&] {
            device.write_epoch(1, epoch);
            device.launch(
                1, {best_effort.context.get(), best_effort.slot.binding(), 0, 2, epoch, true, ++mark, false, split});
        };
        device.launch(kRealTimeQueue, {real_time.context.get(), real_time.slot.binding(), 0, 1, 0, false,
                                       real_time_mark, false, split});
        const uint32_t other_mark = other.launch(device, 2);
        wait_inside(static_cast<int>(workers - split));
        launch();
        // Whoever is inside stays until it is let go: on these workers the real-time model, on the others the windows beside.
        auto only_where_they_may = [&](uint32_t launches) {
            wait_inside(static_cast<int>(workers));
            while (begun(0) < workers - split || begun(2) < launches * split)
                sched_yield();
            CHECK(begun(0) == workers - split && begun(2) == launches * split && begun(4) == 0);
        };
        for (uint32_t launches = 1; launches <= 3; launches++) {
            only_where_they_may(launches);
            epoch++;
            device.write_epoch(1, epoch);
            wait_for(device, 1, mark);
            launch();
        }
        only_where_they_may(4);
        epoch++;
        device.write_epoch(1, epoch);
        wait_for(device, 1, mark);
        device.launch(kRealTimeQueue, {next.context.get(), next.slot.binding(), 0, 1, 0, false, real_time_mark + 1});
        launch();
        wait_inside(static_cast<int>(workers));
        released = true;
        wait_for(device, kRealTimeQueue, real_time_mark + 1);
        wait_for(device, 1, mark);
        wait_for(device, 2, other_mark);
        epoch++;
        check_output(first, real_time.slot);
        check_output(second, next.slot);
        check_output(beside, best_effort.slot);
        check_output(unsplit, other.slot);
        CHECK(begun_after(1, 4 * workers, *std::min_element(records[4].order, records[4].order + 4)) <
              static_cast<long>(workers));
        for (uint32_t id : {2u, 3u})
            for (uint32_t block = 0; block < 3 * workers; block++)
                CHECK(records[id].finished[block] == 1);
        // Without real-time work too, a window keeps to its split: the other workers have nothing else to do.
        Once alone(device, beside);
        clear_records();
        released = false;
        device.write_epoch(1, epoch);
        device.launch(1, {alone.context.get(), alone.slot.binding(), 0, 2, epoch, true, ++mark, false, split});
        while (begun(2) < split)
            sched_yield();
        for (const uint64_t until = monotonic_ns() + 300'000; monotonic_ns() < until;)
            sched_yield();
        CHECK(begun(2) == split);
        released = true;
        wait_for(device, 1, mark);
        check_output(beside, alone.slot);
        epoch++;
    }
}

// Best-effort work is launched while real-time work is on the device and the other workers sleep. When the real-time
// window retires, they wake: the blocks wait until two are inside at once.
void uncovered(const Arguments& arguments) {
    CpuOptions how = options(arguments.workers);
    how.spin_ns = 0;
    CpuDevice device(how);
    Chain held = probe_chain(device, 0, 1, 1, {.held = true});
    Chain chain = probe_chain(device, 1, 1, 4, {.meets = true});
    std::mt19937_64 random(arguments.seed);
    for (uint32_t round = 0; round < arguments.rounds; round++) {
        Once real_time(device, held), best_effort(device, chain);
        clear_records();
        released = false;
        const uint32_t real_time_mark = real_time.launch(device, kRealTimeQueue);
        wait_inside(1);
        const uint32_t mark = best_effort.launch(device, 1);
        const uint64_t until = monotonic_ns() + random() % 1'000'000;
        while (monotonic_ns() < until)
            sched_yield();
        released = true;
        wait_for(device, kRealTimeQueue, real_time_mark);
        wait_for(device, 1, mark);
        check_output(chain, best_effort.slot);
    }
}

// Blocks that need each other's company on kernel after kernel: every kernel's start wakes sleeping workers.
void wakes_for_kernels(const Arguments& arguments) {
    CpuOptions how = options(arguments.workers);
    how.spin_ns = 0;
    CpuDevice device(how);
    Chain alone = probe_chain(device, 0, 1, 1, {.block_ns = 300'000});
    Chain together = probe_chain(device, 1, 6, 2, {.meets = true});
    for (uint32_t round = 0; round < arguments.rounds; round++) {
        Once request(device, together), first(device, alone);
        const QueueId queue = round % 2 ? kRealTimeQueue : 1;
        clear_records();
        wait_for(device, queue, first.launch(device, queue));
        clear_records();
        wait_for(device, queue, request.launch(device, queue));
        check_output(together, request.slot);
    }
}

// Real-time blocks run in SCHED_FIFO, best-effort blocks do not: at most the one that each worker was about to begin when
// real-time work came and raised it.
void scheduling_class(const Arguments& arguments) {
    CpuOptions how = options(arguments.workers);
    how.realtime = true;
    CpuDevice device(how);
    if (!device.info().real_time) {
        std::puts("SCHED_FIFO is not permitted here: run as root, or with RLIMIT_RTPRIO of 10 or more");
        std::exit(77);
    }
    Chain real_time_chain = probe_chain(device, 0, 2, 6, {});
    Chain best_effort_chain = probe_chain(device, 2, 2, 6, {});
    for (uint32_t round = 0; round < arguments.rounds; round++) {
        clear_records();
        Once real_time(device, real_time_chain), best_effort(device, best_effort_chain);
        uint32_t mark = 0;
        if (round % 2)
            mark = best_effort.launch(device, 1);
        const uint32_t real_time_mark = real_time.launch(device, kRealTimeQueue);
        if (round % 2 == 0)
            mark = best_effort.launch(device, 1);
        wait_for(device, kRealTimeQueue, real_time_mark);
        wait_for(device, 1, mark);
        CHECK(records[0].in_fifo == 6 && records[1].in_fifo == 6);
        CHECK(records[2].in_fifo + records[3].in_fifo <= (round % 2 ? arguments.workers : 0));
    }
}

// In simulated time: a worker that is always busy, and one that comes and goes, spend at most 0.9 s of any second in
// SCHED_FIFO.
void purse(const Arguments& arguments) {
    std::mt19937_64 random(arguments.seed);
    constexpr uint64_t step_ns = 100'000, second = 1'000'000'000 / step_ns;
    for (uint32_t round = 0; round < arguments.rounds; round++) {
        uint64_t now = 5, busy_until = 0, idle_until = 0, in_window = 0, most = 0;
        RealtimePurse account(now);
        std::vector<bool> in_fifo;
        bool raised = false;
        while (in_fifo.size() < 20 * second) {
            if (in_fifo.size() >= idle_until) {
                busy_until = in_fifo.size() + random() % (2 * second);
                idle_until = busy_until + random() % second;
            }
            const bool busy = round == 0 || in_fifo.size() < busy_until;
            if (!busy)
                raised = false;
            else if (!raised)
                raised = account.may_raise();
            now += step_ns;
            account.account(now, raised);
            in_fifo.push_back(raised);
            in_window += raised;
            if (in_fifo.size() > second)
                in_window -= in_fifo[in_fifo.size() - 1 - second];
            most = std::max(most, in_window);
            if (account.empty())
                raised = false;
        }
        CHECK(most <= second * 9 / 10 + 1);
        CHECK(round != 0 || most >= second * 8 / 10);
    }
}

// Nothing is allocated by launching, running, preempting and retiring.
void no_allocation(const Arguments& arguments) {
    CpuDevice device(options(arguments.workers));
    Chain chain = arithmetic_chain(device, 6, 20'000, arguments.seed);
    Once best_effort(device, chain), real_time(device, chain);
    Runner runner(device);
    auto both = [&](uint32_t rounds) {
        for (uint32_t round = 0; round < rounds; round++) {
            runner.run(*best_effort.context, 6, best_effort.slot.binding(),
                       {.preemptible = true, .interrupts = 3, .seed = round});
            runner.run(*real_time.context, 6, real_time.slot.binding(), {});
        }
    };
    both(1);
    const uint64_t before = allocations;
    both(arguments.rounds);
    CHECK(allocations == before);
    check_output(chain, best_effort.slot);
    check_output(chain, real_time.slot);
}

}  // namespace stress
