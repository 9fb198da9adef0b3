// SPDX-License-Identifier: Apache-2.0
// Scenarios about exactness: every bit of the outputs, every block, the memory of a window that retired.

#include <sched.h>

#include <cstring>
#include <string>
#include <thread>

#include "clock.hpp"
#include "cpu_context.hpp"
#include "scenarios.hpp"

namespace stress {

using namespace reef;

// Each kernel index is begun and then interrupted, all in one run; then resumed to the end.
void every_kernel(const Arguments& arguments) {
    CpuDevice device(options(arguments.workers));
    Chain chain = arithmetic_chain(device, 12, 60'000, arguments.seed);
    auto context = device.make_context(chain.model);
    Runner runner(device);
    std::vector<uint32_t> all;
    for (uint32_t kernel = 0; kernel < chain.model->kernels(); kernel++)
        all.push_back(kernel);
    uint32_t preempted = 0;
    for (uint32_t round = 0; round < arguments.rounds || preempted == 0; round++) {  // more, on a busy machine
        Slot slot(chain);
        preempted +=
            runner
                .run(*context, chain.model->kernels(), slot.binding(),
                     {.preemptible = true, .interrupt_at = all, .within_ns = 30'000, .seed = arguments.seed + round})
                .preempted;
        check_output(chain, slot);
    }
}

// Interruptions at random instants, also while it resumes; finished blocks never run again.
void random_instants(const Arguments& arguments) {
    CpuDevice device(options(arguments.workers));
    Chain chain = arithmetic_chain(device, 9, 100'000, arguments.seed);
    Chain recorded = probe_chain(device, 0, 6, 16, {.block_ns = 20'000});
    Chain wide = probe_chain(device, 0, 2, 150, {.block_ns = 2'000});  // bits in several words, the last one not full
    auto context = device.make_context(chain.model);
    auto recorded_context = device.make_context(recorded.model), wide_context = device.make_context(wide.model);
    Runner runner(device);
    uint32_t preempted = 0;
    for (uint32_t round = 0; round < arguments.rounds || preempted == 0; round++) {  // more, on a busy machine
        Slot slot(chain), recorded_slot(recorded), wide_slot(wide);
        const RunOptions how{.preemptible = true,
                             .interrupts = 1 + round % 20,
                             .within_ns = round % 3 ? 200'000u : 5'000u,
                             .seed = arguments.seed + round};
        preempted += runner.run(*context, chain.model->kernels(), slot.binding(), how).preempted;
        check_output(chain, slot);
        clear_records();
        preempted += runner.run(*recorded_context, recorded.model->kernels(), recorded_slot.binding(), how).preempted;
        check_output(recorded, recorded_slot);
        check_exactly_once(6, 16);
        clear_records();
        preempted += runner.run(*wide_context, wide.model->kernels(), wide_slot.binding(), how).preempted;
        check_output(wide, wide_slot);
        check_exactly_once(2, 150);
    }
}

namespace {

std::vector<uint64_t> abandoned(const Device& device, uint32_t workers) {
    std::vector<WorkerStatistics> units(workers);
    device.statistics(units.data(), workers);
    std::vector<uint64_t> counts;
    for (const WorkerStatistics& unit : units)
        counts.push_back(unit.abandoned);
    return counts;
}

void wait_until(uint64_t until_ns) {
    while (monotonic_ns() < until_ns) {
    }
}

}  // namespace

// What a preemption costs in work: the block that each worker was in, which runs again, and nothing else. Preempted while
// every worker is inside, again and again; then at random instants, when some may be in none.
void redone(const Arguments& arguments) {
    CpuDevice device(options(arguments.workers));
    const uint32_t workers = arguments.workers, blocks = 3 * workers;
    Chain held = probe_chain(device, 0, 1, blocks, {.held = true});
    Chain slow = probe_chain(device, 0, 3, blocks, {.block_ns = 20'000});
    std::mt19937_64 random(arguments.seed);
    uint32_t epoch = 0, mark = device.retired(1);
    for (uint32_t round = 0; round < arguments.rounds; round++) {
        const Chain& chain = round % 2 ? slow : held;
        const uint32_t kernels = chain.model->kernels();
        auto context = device.make_context(chain.model);
        Slot slot(chain);
        clear_records();
        uint64_t lost = 0;
        for (uint64_t preemptions = 1 + random() % 6, i = 0; i <= preemptions; i++) {
            const bool preempts = i < preemptions;
            const std::vector<uint64_t> before = abandoned(device, workers);
            released = !preempts;
            device.write_epoch(1, ++epoch);
            device.launch(1,
                          {context.get(), slot.binding(), device.kernels_done(*context), kernels, epoch, true, ++mark});
            if (preempts) {
                if (&chain == &held)
                    wait_inside(static_cast<int>(workers));
                else
                    wait_until(monotonic_ns() + random() % 300'000);
                device.write_epoch(1, ++epoch);
            }
            wait_for(device, 1, mark);
            const std::vector<uint64_t> after = abandoned(device, workers);
            for (uint32_t worker = 0; worker < workers; worker++) {
                CHECK(after[worker] - before[worker] <= preempts);
                CHECK(&chain != &held || after[worker] - before[worker] == preempts);
                lost += after[worker] - before[worker];
            }
        }
        uint64_t runs = 0;
        for (uint32_t id = 0; id < kernels; id++)
            runs += begun(id);
        CHECK(runs == uint64_t{kernels} * blocks + lost);
        check_exactly_once(kernels, blocks);
        check_output(chain, slot);
    }
}

namespace {

// A best-effort request of one queue, preempted and resumed by the caller.
struct BestEffort {
    BestEffort(Device& d, QueueId q, const Chain& c) : device(d), queue(q), chain(c), context(d.make_context(c.model)) {
        begin();
    }
    void begin() {
        slot = std::make_unique<Slot>(chain);
        device.clear_record(*context);
    }
    bool in_flight() const { return device.retired(queue) != mark; }
    void launch() {
        const uint32_t done = device.kernels_done(*context);
        // Sometimes as two windows, one behind the other.
        const uint32_t all = chain.model->kernels(), middle = done + (all - done) / 2;
        const bool two = middle > done && mark % 2;
        if (two)
            device.launch(queue, {context.get(), slot->binding(), done, middle, epoch, true, ++mark});
        device.launch(queue, {context.get(), slot->binding(), two ? middle : done, all, epoch, true, ++mark});
    }
    void preempt() { device.write_epoch(queue, ++epoch); }
    // Retired: checks a finished one and begins again.
    bool finish() {
        if (device.kernels_done(*context) != chain.model->kernels())
            return false;
        check_output(chain, *slot);
        begin();
        return true;
    }
    Device& device;
    QueueId queue;
    const Chain& chain;
    std::unique_ptr<Context> context;
    std::unique_ptr<Slot> slot;
    uint32_t epoch = 0;
    uint32_t mark = 0;
};

}  // namespace

// Real-time requests, each preempting two best-effort queues that work side by side.
void real_time(const Arguments& arguments) {
    CpuDevice device(options(arguments.workers));
    Chain fast = arithmetic_chain(device, 5, 20'000, arguments.seed);
    Chain first = arithmetic_chain(device, 7, 50'000, arguments.seed + 1);
    Chain second = arithmetic_chain(device, 11, 30'000, arguments.seed + 2);
    auto context = device.make_context(fast.model);
    BestEffort best_effort[] = {{device, 1, first}, {device, 2, second}};
    std::mt19937_64 random(arguments.seed);
    uint32_t preempted = 0, mark = device.retired(kRealTimeQueue);
    // On a busy machine a worker may not have begun when it is preempted: as many rounds as it takes to see one.
    for (uint32_t round = 0; round < arguments.rounds || preempted == 0; round++) {
        for (BestEffort& request : best_effort)
            if (!request.in_flight()) {
                preempted += !request.finish() && device.kernels_done(*request.context) > 0;
                request.launch();
            }
        const uint64_t until = monotonic_ns() + random() % 300'000;
        while (monotonic_ns() < until) {
        }
        const bool preempts = random() % 4 != 0;  // otherwise the real-time window comes beside valid ones
        if (preempts)
            for (BestEffort& request : best_effort)
                request.preempt();
        Slot slot(fast);
        device.clear_record(*context);
        device.launch(kRealTimeQueue, {context.get(), slot.binding(), 0, fast.model->kernels(), 0, false, ++mark});
        wait_for(device, kRealTimeQueue, mark);
        check_output(fast, slot);
        if (preempts)
            for (BestEffort& request : best_effort)
                wait_for(device, request.queue, request.mark);
    }
    for (BestEffort& request : best_effort) {
        wait_for(device, request.queue, request.mark);
        while (!request.finish()) {
            request.launch();
            wait_for(device, request.queue, request.mark);
        }
    }
}

// Tiny windows through every slot of a queue again and again, with workers that sleep in between.
void generations(const Arguments& arguments) {
    CpuOptions how = options(arguments.workers);
    if (arguments.seed % 2)
        how.spin_ns = 0;
    CpuDevice device(how);
    Chain chain = probe_chain(device, 0, 2, 3, {});
    std::vector<std::unique_ptr<Context>> contexts;
    for (uint32_t i = 0; i < kQueueDepth; i++)
        contexts.push_back(device.make_context(chain.model));
    std::vector<Slot> slots(kQueueDepth, Slot(chain));
    std::mt19937_64 random(arguments.seed);
    uint32_t epoch = 0, mark = device.retired(1), done = mark;
    device.write_epoch(1, epoch);
    for (uint32_t round = 0; round < arguments.rounds; round++) {
        const uint32_t room = kQueueDepth - (mark - done), batch = 1 + static_cast<uint32_t>(random() % room);
        clear_records();
        for (uint32_t i = 0; i < batch; i++) {
            const uint32_t at = ++mark % kQueueDepth;
            device.clear_record(*contexts[at]);
            device.launch(1, {contexts[at].get(), slots[at].binding(), 0, 2, epoch, true, mark});
            // Records are shared by all: one window at a time is begun.
            wait_for(device, 1, mark);
            CHECK(device.kernels_done(*contexts[at]) == 2);
            check_exactly_once(2, 3);
            check_output(chain, slots[at]);
            std::fill(slots[at].output.begin(), slots[at].output.end(), 0.0f);
            clear_records();
        }
        done = mark;
        // A full queue made stale at once: all retire in order, none runs twice, nothing is left.
        const uint32_t full = kQueueDepth;
        for (uint32_t i = 0; i < full; i++) {
            const uint32_t at = ++mark % kQueueDepth;
            device.clear_record(*contexts[at]);
            device.launch(1, {contexts[at].get(), slots[at].binding(), 0, 1, epoch, true, mark});
        }
        if (random() % 2)
            device.write_epoch(1, ++epoch);
        wait_for(device, 1, mark);
        CHECK(device.retired(1) == mark);
        done = mark;
    }
}

// Deaf blocks run on after the epoch was written: the window must not retire before the last of them has left. What it
// used is overwritten and freed at once.
void retirement(const Arguments& arguments) {
    CpuDevice device(options(arguments.workers));
    Chain slow = probe_chain(device, 0, 4, 8, {.block_ns = 30'000, .deaf = true});
    Chain held = probe_chain(device, 4, 4, 8, {.deaf = true, .held = true});
    std::mt19937_64 random(arguments.seed);
    uint32_t mark = device.retired(1);
    for (uint32_t round = 0; round < arguments.rounds; round++) {
        const Chain& chain = round % 2 ? held : slow;
        auto context = device.make_context(chain.model);
        auto slot = std::make_unique<Slot>(chain);
        clear_records();
        released = false;
        device.write_epoch(1, 2 * round);
        device.launch(1, {context.get(), slot->binding(), 0, 4, 2 * round, true, ++mark});
        const uint64_t until = monotonic_ns() + random() % 200'000;
        while (monotonic_ns() < until) {
        }
        if (round % 2)
            wait_inside(1);
        device.write_epoch(1, 2 * round + 1);
        if (round % 2) {
            CHECK(device.retired(1) == mark - 1);
            released = true;
        }
        wait_for(device, 1, mark);
        CHECK(inside == 0);
        CHECK(round % 2 == 0 || device.kernels_done(*context) == 0);
        std::memset(slot->output.data(), 0xff, slot->output.size() * sizeof(float));
    }
}

// Blocks that cannot finish before the next preemption, however late it comes, still finish.
void shield(const Arguments& arguments) {
    CpuOptions how = options(arguments.workers);
    how.shield_after = 5;
    CpuDevice device(how);
    Chain chain = probe_chain(device, 0, 2, 3, {.endless = true});
    auto context = device.make_context(chain.model);
    Runner runner(device);
    for (uint32_t round = 0; round < arguments.rounds; round++) {
        clear_records();
        Slot slot(chain);
        RunReport report =
            runner.run(*context, 2, slot.binding(),
                       {.preemptible = true, .interrupts = 2'000, .within_ns = 100'000, .seed = arguments.seed});
        check_output(chain, slot);
        check_exactly_once(2, 3);
        CHECK(report.preempted >= how.shield_after);
        CHECK(report.preempted < 2'000);
    }
}

// The gate alone, entered without looking first: nobody gets into a closed window or into one of another mark, and nobody
// is inside once it retired.
void gate(const Arguments& arguments) {
    CpuWindow window;
    std::atomic<uint32_t> launched = 0, retired = 0, entered = 0;
    std::atomic<bool> over = false;
    uint32_t field = 0;  // as the context of a window: written between two windows, read by those inside
    std::vector<std::thread> workers;
    for (uint32_t i = 0; i < arguments.workers; i++) {
        workers.emplace_back([&, i] {
            std::mt19937_64 random(arguments.seed + i);
            while (!over) {
                const uint32_t mark = launched - (random() % 4 == 0);  // sometimes an old one
                if (!window.enter(mark)) {
                    sched_yield();
                    continue;
                }
                CHECK(field == mark);
                entered++;
                if (random() % 8 == 0)
                    window.close();
                CHECK(retired != mark);
                if (window.leave() && window.retire(mark))
                    retired = mark;
            }
        });
    }
    for (uint32_t mark = 1; mark <= 20 * arguments.rounds; mark++) {
        field = mark;
        window.open(mark, 0);
        launched = mark;
        for (const uint32_t before = entered; mark % 4 && entered == before && retired != mark;)
            sched_yield();
        window.close();
        if (window.retire(mark))
            retired = mark;
        while (retired != mark)
            sched_yield();
    }
    over = true;
    for (std::thread& worker : workers)
        worker.join();
}

}  // namespace stress
