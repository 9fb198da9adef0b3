// SPDX-License-Identifier: Apache-2.0
// What the stress scenarios share: an operator that records every block it runs, networks made of it, and checks.
#pragma once
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <kernel.hpp>
#include <memory>
#include <random>
#include <vector>

#include "cpu_device.hpp"
#include "model.hpp"
#include "runner.hpp"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            std::fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);                               \
            std::_Exit(1);                                                                                             \
        }                                                                                                              \
    } while (false)

namespace stress {

inline constexpr uint32_t kInstances = 64;
inline constexpr uint32_t kBlocks = 160;  // more than two words of bits
inline constexpr size_t kBlockElements = 64;

// Of one instance of the operator `probe`, by its attribute `id`.
struct Record {
    std::atomic<uint32_t> begun[kBlocks];
    std::atomic<uint32_t> finished[kBlocks];
    std::atomic<uint64_t> order[kBlocks];  // when it was last begun, counted over all blocks of all probes
    std::atomic<uint32_t> in_fifo;         // blocks begun in SCHED_FIFO
};
extern Record records[kInstances];
uint32_t begun(uint32_t id);  // blocks of an instance
// Blocks of any probe that run right now, and the most at once since records were cleared.
extern std::atomic<int> inside;
extern std::atomic<int> most_inside;
// Calls of operator new, anywhere in the process.
extern std::atomic<uint64_t> allocations;

void clear_records();
// Every block of instances [0, instances) finished exactly once.
void check_exactly_once(uint32_t instances, uint32_t blocks);

// `probe`, `accumulate`, and the real operators `unary` and `binary`.
reef::cpu::OperatorTable operators();

struct Chain {
    std::shared_ptr<reef::DeviceModel> model;
    std::vector<float> input;
    std::vector<float> expected;
};

struct Behaviour {
    uint64_t block_ns = 0;  // a block takes at least this long, looking for the epoch all the time
    bool deaf = false;      // does not look
    bool endless = false;   // a preemptible block never finishes
    bool held = false;      // a block ends no sooner than `released`
    bool meets = false;     // a block ends no sooner than two blocks have been inside at once
};
extern std::atomic<bool> released;
// Waits until so many blocks are inside at once.
void wait_inside(int blocks);

// in -> kernels instances -> out, `blocks` blocks each.
Chain probe_chain(reef::Device& device, uint32_t first_id, uint32_t kernels, uint32_t blocks,
                  const Behaviour& behaviour);
// The same with unary and binary: real arithmetic.
Chain arithmetic_chain(reef::Device& device, uint32_t kernels, size_t elements, uint64_t seed);

reef::CpuOptions options(uint32_t workers);

// The memory of one request, laid out as in a slot.
struct Slot {
    explicit Slot(const Chain& chain);
    reef::Binding binding() {
        return {reinterpret_cast<std::byte*>(input.data()), reinterpret_cast<std::byte*>(output.data())};
    }
    std::vector<float> input;
    std::vector<float> output;
};
// The bits of the output are those of an uninterrupted run.
void check_output(const Chain& chain, const Slot& slot);

void wait_for(reef::Device& device, reef::QueueId queue, uint32_t mark);

}  // namespace stress
