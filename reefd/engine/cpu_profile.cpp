// SPDX-License-Identifier: Apache-2.0
#include "cpu_profile.hpp"

#include <poll.h>

#include <algorithm>
#include <barrier>
#include <thread>

#include "clock.hpp"
#include "cpu_context.hpp"
#include "cpu_model.hpp"
#include "cpu_worker.hpp"

namespace reef {
namespace {

// Blocks of one instance that are told apart; block b is one with block b + kBuckets.
constexpr uint32_t kBuckets = 4096;

constexpr size_t kCacheBytes = size_t{48} << 20;  // more than a processor's share of the last level

uint32_t pieces_of(const CpuKernel& instance) { return instance.unit ? instance.unit->pieces : 0; }

uint32_t buckets_of(const CpuKernel& instance) {
    return std::min(std::max(instance.kernel.blocks, pieces_of(instance)), kBuckets);
}

// The least seen of each bucket, in ticks.
struct Least {
    uint64_t block = UINT64_MAX;
    uint64_t check = UINT64_MAX;
    uint64_t save = UINT64_MAX;  // a piece of a unit's snapshot
    uint64_t back = UINT64_MAX;
};

// Two windows are on the device at a time, each with a context of its own.
struct Lap {
    std::unique_ptr<Context> context;
    std::vector<uint64_t> ends;
    uint32_t mark = 0;
};

// Sleeps: this thread has no processor of its own.
void await(Device& device, uint32_t mark) {
    while (static_cast<int32_t>(device.retired(kRealTimeQueue) - mark) < 0) {
        if (!device.arm())
            continue;
        pollfd event{device.event_fd(), POLLIN, 0};
        poll(&event, 1, -1);
    }
}

class BlockProfiler {
public:
    BlockProfiler(const std::shared_ptr<DeviceModel>& model, const Binding& binding, uint32_t threads, uint32_t rounds)
        : context_(std::static_pointer_cast<const CpuModel>(model)), threads_(threads), rounds_(rounds),
          barrier_(threads) {
        context_.bind(binding);
        for (const CpuKernel& instance : instances())
            least_.emplace_back(buckets_of(instance));
    }

    std::vector<BlockTimes> run() {
        std::vector<std::unique_ptr<LockedMemory>> scratch;
        for (uint32_t i = 0; i < threads_; i++) {
            scratch.push_back(std::make_unique<LockedMemory>(cpu::kMaxScratch));
            scratch.back()->fill(context_.model().scratch_bytes);
        }
        const uint64_t begin_ns = monotonic_ns(), begin = cpu::ticks();
        {
            std::vector<std::jthread> team;
            for (uint32_t i = 0; i < threads_; i++)
                team.emplace_back([this, i, memory = scratch[i]->data()] { work(i, memory); });
        }
        const double tick_ns =
            static_cast<double>(monotonic_ns() - begin_ns) / static_cast<double>(cpu::ticks() - begin);
        std::vector<BlockTimes> times;
        auto ns = [&](uint64_t ticks) { return static_cast<uint64_t>(static_cast<double>(ticks) * tick_ns); };
        for (size_t kernel = 0; kernel < least_.size(); kernel++) {
            Least longest{0, 0, 0, 0};
            for (const Least& bucket : least_[kernel]) {
                longest.block = std::max(longest.block, bucket.block);
                longest.check = std::max(longest.check, bucket.check);
                longest.save = std::max(longest.save, bucket.save);
                longest.back = std::max(longest.back, bucket.back);
            }
            const uint64_t copy = instances()[kernel].unit ? std::max(longest.save, longest.back) : 0;
            times.push_back({ns(longest.block), ns(longest.check), ns(copy)});
        }
        return times;
    }

private:
    const std::vector<CpuKernel>& instances() const { return context_.model().instances; }

    // A bucket belongs to one thread.
    void work(uint32_t thread, void* scratch) {
        flush_subnormals();
        for (uint32_t round = 0; round < rounds_; round++)
            for (uint32_t kernel = 0; kernel < instances().size(); kernel++) {
                empty_caches(thread);
                barrier_.arrive_and_wait();
                // Saved, then put back, each from where other work left the caches.
                for (uint32_t pass = 0; instances()[kernel].unit && pass < 2; pass++) {
                    copy_pieces(kernel, thread, pass != 0);
                    barrier_.arrive_and_wait();
                    empty_caches(thread);
                    barrier_.arrive_and_wait();
                }
                run_kernel(kernel, thread, scratch);
                barrier_.arrive_and_wait();
            }
    }

    // What ran before a kernel, when it is resumed, was another model.
    void empty_caches(uint32_t thread) {
        const size_t part = others_.size() / threads_;
        uint64_t sum = 0;
        for (size_t i = part * thread; i < part * (thread + 1); i += kLine / 2 / sizeof(uint64_t))
            sum += others_[i];
        asm volatile("" : : "r"(sum));
    }

    // What a worker does between two looks at the epoch: a piece, and after the last one what makes the blocks ready.
    void copy_pieces(uint32_t index, uint32_t thread, bool back) {
        std::vector<Least>& least = least_[index];
        const uint32_t buckets = buckets_of(instances()[index]);
        for (uint32_t bucket = thread; bucket < buckets; bucket += threads_) {
            uint64_t longest = 0;
            for (uint32_t piece = bucket; piece < pieces_of(instances()[index]); piece += buckets) {
                const uint64_t begin = cpu::ticks();
                context_.copy(index, piece);
                // Saved: as one whose blocks may be abandoned, so that the next pass puts it back.
                context_.piece_done(index, back);
                longest = std::max(longest, cpu::ticks() - begin);
            }
            uint64_t& slowest = back ? least[bucket].back : least[bucket].save;
            slowest = std::min(slowest, longest);
        }
    }

    void run_kernel(uint32_t index, uint32_t thread, void* scratch) {
        const CpuKernel& instance = instances()[index];
        const cpu::Kernel& kernel = instance.kernel;
        std::vector<Least>& least = least_[index];
        const uint32_t buckets = buckets_of(instance);
        for (uint32_t bucket = thread; bucket < buckets; bucket += threads_) {
            Least longest{0, 0, 0, 0};
            for (uint32_t block = bucket; block < kernel.blocks; block += buckets) {
                const uint64_t begin = cpu::ticks();
                cpu::Probe probe{begin, 0};
                kernel.run_preemptible(kernel, {context_.arguments(instance), block, scratch},
                                       {&kEpoch, kEpoch + 1, &probe});
                probe.pass();
                longest.block = std::max(longest.block, probe.last - begin);
                longest.check = std::max(longest.check, probe.longest);
            }
            least[bucket].block = std::min(least[bucket].block, longest.block);
            least[bucket].check = std::min(least[bucket].check, longest.check);
        }
    }

    static constexpr uint32_t kEpoch = 0;
    CpuContext context_;
    const uint32_t threads_;
    const uint32_t rounds_;
    std::barrier<> barrier_;
    const std::vector<uint64_t> others_ = std::vector<uint64_t>(kCacheBytes / sizeof(uint64_t), 1);
    std::vector<std::vector<Least>> least_;  // of each bucket of each instance
};

}  // namespace

std::vector<uint64_t> kernel_times(CpuDevice& device, const std::shared_ptr<DeviceModel>& model, const Binding& binding,
                                   uint32_t rounds) {
    const uint32_t kernels = model->kernels();
    Lap laps[2];
    for (Lap& lap : laps) {
        lap.context = device.make_context(model);
        lap.ends.resize(kernels);
        static_cast<CpuContext&>(*lap.context).note_ends(lap.ends.data());
    }
    std::vector<uint64_t> times;
    times.reserve(size_t{rounds} * kernels);
    uint32_t mark = device.retired(kRealTimeQueue);
    auto launch = [&](Lap& lap) {
        device.clear_record(*lap.context);
        lap.mark = ++mark;
        device.launch(kRealTimeQueue, {.context = lap.context.get(),
                                       .binding = binding,
                                       .first = 0,
                                       .last = kernels,
                                       .epoch = 0,
                                       .preemptible = false,
                                       .mark = mark});
    };
    launch(laps[0]);  // only gives the first round a beginning
    uint64_t end = 0;
    for (uint32_t round = 0; round <= rounds && kernels != 0; round++) {
        if (round < rounds)
            launch(laps[(round + 1) % 2]);
        const Lap& lap = laps[round % 2];
        await(device, lap.mark);
        for (uint64_t next : lap.ends) {
            if (round != 0)
                times.push_back(next - end);
            end = next;
        }
    }
    await(device, mark);
    return times;
}

std::vector<BlockTimes> block_times(const std::shared_ptr<DeviceModel>& model, const Binding& binding, uint32_t threads,
                                    uint32_t rounds) {
    return BlockProfiler(model, binding, threads, rounds).run();
}

}  // namespace reef
