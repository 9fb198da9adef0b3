// SPDX-License-Identifier: Apache-2.0
#include "cpu_notice.hpp"

#include <poll.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "clock.hpp"
#include "cpu_place.hpp"
#include "cpu_queue.hpp"

namespace reef {
namespace {

constexpr size_t kPiece = 4096;  // read between two looks: as far apart as check points, or closer

struct alignas(kLine) Spinner {
    std::atomic<uint64_t> noticed_ns = 0;
    std::atomic<uint32_t> round = UINT32_MAX;
};

struct Shared {
    alignas(kLine) std::atomic<uint32_t> word = 0;
    alignas(kLine) std::atomic<bool> over = false;
};

void spin(Shared& shared, Spinner& own, int cpu, size_t memory) {
    pin_to(cpu);
    const sched_param ordinary{};
    sched_setscheduler(0, SCHED_OTHER, &ordinary);
    const std::vector<uint64_t> data(memory / sizeof(uint64_t), 1);
    uint64_t sum = 0;
    for (size_t at = 0; !shared.over.load(std::memory_order_relaxed);) {
        if (const uint32_t word = shared.word.load(std::memory_order_relaxed);
            word != own.round.load(std::memory_order_relaxed)) {
            own.noticed_ns.store(monotonic_ns(), std::memory_order_relaxed);
            own.round.store(word, std::memory_order_release);
        }
        if (!data.empty()) {
            for (size_t end = std::min(at + kPiece / sizeof(uint64_t), data.size()); at < end; at++)
                sum += data[at];
            at = at < data.size() ? at : 0;
        }
    }
    asm volatile("" : : "r"(sum));
}

void sleep_until(uint64_t until_ns) {
    for (uint64_t now = monotonic_ns(); now < until_ns; now = monotonic_ns()) {
        const timespec timeout{static_cast<time_t>((until_ns - now) / 1'000'000'000),
                               static_cast<long>((until_ns - now) % 1'000'000'000)};
        ppoll(nullptr, 0, &timeout, nullptr);
    }
}

}  // namespace

void measure_notice(std::span<NoticeSample> samples, const NoticeOptions& options) {
    Shared shared;
    const std::vector<int> cpus = allowed_cpus();
    const std::unique_ptr<Spinner[]> spinners(new Spinner[options.threads]);
    std::vector<std::jthread> threads;
    for (uint32_t i = 0; i < options.threads; i++)
        threads.emplace_back([&, i] { spin(shared, spinners[i], cpus[i % cpus.size()], options.memory); });
    std::mt19937_64 random(options.seed);
    uint32_t round = 0;
    auto await = [&](const Spinner& spinner) {
        while (spinner.round.load(std::memory_order_acquire) != round)
            sleep_until(monotonic_ns() + 50'000);
        return spinner.noticed_ns.load(std::memory_order_relaxed);
    };
    for (uint32_t i = 0; i < options.threads; i++)
        await(spinners[i]);
    for (NoticeSample& sample : samples) {
        const uint64_t due_ns = monotonic_ns() + random() % (options.within_ns + 1);
        sleep_until(due_ns);
        const uint64_t written_ns = monotonic_ns();
        shared.word.store(++round, std::memory_order_release);
        sample = {0, written_ns - due_ns};
        for (uint32_t i = 0; i < options.threads; i++)
            sample.latency_ns = std::max(sample.latency_ns, await(spinners[i]) - written_ns);
    }
    shared.over.store(true, std::memory_order_relaxed);
}

}  // namespace reef
