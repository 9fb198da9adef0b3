// SPDX-License-Identifier: Apache-2.0
#include <poll.h>
#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "clock.hpp"
#include "stress.hpp"

namespace reef::cpu::portable {
extern const Operator unary;
extern const Operator binary;
}  // namespace reef::cpu::portable

namespace stress {

using namespace reef;

Record records[kInstances];
std::atomic<int> inside;
std::atomic<int> most_inside;
std::atomic<bool> released;

namespace {

std::atomic<uint64_t> sequence;

struct Probe {
    uint32_t id;
    uint32_t blocks;
    Behaviour behaviour;
    bool checks_before;  // the instance before it belongs to the same model and is recorded
};

template <class Check> bool probe_block(const cpu::Kernel& kernel, const cpu::BlockArgs& args, const Check& check) {
    const Probe& probe = *static_cast<const Probe*>(kernel.params);
    Record& record = records[probe.id];
    const int now_inside = inside.fetch_add(1, std::memory_order_relaxed) + 1;
    int most = most_inside.load(std::memory_order_relaxed);
    while (most < now_inside && !most_inside.compare_exchange_weak(most, now_inside, std::memory_order_relaxed)) {
    }
    if (sched_getscheduler(0) == SCHED_FIFO)
        record.in_fifo.fetch_add(1, std::memory_order_relaxed);
    record.order[args.block].store(sequence.fetch_add(1), std::memory_order_relaxed);
    record.begun[args.block].fetch_add(1, std::memory_order_relaxed);
    if (probe.checks_before)
        for (uint32_t block = 0; block < probe.blocks; block++)
            CHECK(records[probe.id - 1].finished[block].load(std::memory_order_relaxed) == 1);
    const float* x = static_cast<const float*>(args.args[0]);
    float* y = static_cast<float*>(args.args[1]);
    const Behaviour& how = probe.behaviour;
    const uint64_t until = how.block_ns ? monotonic_ns() + how.block_ns : 0;
    const bool endless = how.endless && std::is_same_v<Check, cpu::Checkpoint>;
    bool finished = true;
    for (size_t i = 0; i < kBlockElements && finished; i++) {
        // Reads the whole input of its row of blocks, so that a block that runs too early shows.
        const size_t mine = args.block * kBlockElements + i;
        const size_t other = (probe.blocks - 1 - args.block) * kBlockElements + i;
        y[mine] = x[mine] * 0.75f + x[other] * 0.5f + static_cast<float>(probe.id);
        finished = how.deaf || !check.stale();
    }
    auto waits = [&] {
        return endless || (how.block_ns && monotonic_ns() < until) || (how.held && !released.load()) ||
               (how.meets && most_inside.load() < 2);
    };
    while (finished && waits()) {
        if (how.held || how.meets)
            sched_yield();
        finished = how.deaf || !check.stale();
    }
    if (finished)
        record.finished[args.block].fetch_add(1, std::memory_order_relaxed);
    inside.fetch_sub(1, std::memory_order_relaxed);
    return finished;
}

bool create_probe(cpu::Spec& spec, cpu::Kernel& kernel) {
    void* memory = spec.allocate(sizeof(Probe));
    if (!memory)
        return false;
    Probe* probe = static_cast<Probe*>(memory);
    probe->id = static_cast<uint32_t>(spec.integer("id", 0));
    probe->blocks = static_cast<uint32_t>(spec.tensor(0).bytes / (kBlockElements * sizeof(float)));
    probe->behaviour = {static_cast<uint64_t>(spec.integer("block_ns", 0)), spec.integer("deaf", 0) != 0,
                        spec.integer("endless", 0) != 0, spec.integer("held", 0) != 0, spec.integer("meets", 0) != 0};
    probe->checks_before = spec.integer("checks_before", 0) != 0;
    kernel = {probe->blocks, 0, probe,
              [](const cpu::Kernel& k, const cpu::BlockArgs& args) { probe_block(k, args, cpu::NoCheckpoint{}); },
              [](const cpu::Kernel& k, const cpu::BlockArgs& args, const cpu::Checkpoint& check) {
                  return probe_block(k, args, check);
              }};
    return true;
}

// y[i] += x[i], x[i + |y|], ...: every block adds its run of x to the whole of y, by atomic additions of the bits as
// integers, whose order makes no difference. Not restorable by its nature, and unknown to the operators' table.
struct Accumulate {
    size_t from, to;
    bool endless;  // a preemptible block never finishes
};

template <class Check>
bool accumulate_block(const cpu::Kernel& kernel, const cpu::BlockArgs& args, const Check& check) {
    const Accumulate& p = *static_cast<const Accumulate*>(kernel.params);
    uint32_t* x = static_cast<uint32_t*>(args.args[0]);
    uint32_t* y = static_cast<uint32_t*>(args.args[1]);
    const size_t begin = args.block * p.to, end = std::min(begin + p.to, p.from);
    for (size_t i = begin; i < end; i++) {
        if (i % 512 == 0 && check.stale())
            return false;
        __atomic_fetch_add(y + i % p.to, x[i], __ATOMIC_RELAXED);
    }
    if (p.endless && std::is_same_v<Check, cpu::Checkpoint>) {
        while (!check.stale()) {
        }
        return false;
    }
    return true;
}

bool create_accumulate(cpu::Spec& spec, cpu::Kernel& kernel) {
    Accumulate* p = static_cast<Accumulate*>(spec.allocate(sizeof(Accumulate)));
    if (!p)
        return false;
    *p = {spec.tensor(0).bytes / sizeof(float), spec.tensor(1).bytes / sizeof(float), spec.integer("endless", 0) != 0};
    kernel = {static_cast<uint32_t>((p->from + p->to - 1) / p->to), 0, p,
              [](const cpu::Kernel& k, const cpu::BlockArgs& args) { accumulate_block(k, args, cpu::NoCheckpoint{}); },
              [](const cpu::Kernel& k, const cpu::BlockArgs& args, const cpu::Checkpoint& check) {
                  return accumulate_block(k, args, check);
              }};
    return true;
}

const cpu::Operator probe{"probe", create_probe};
const cpu::Operator accumulate{"accumulate", create_accumulate};
const cpu::Operator* const table[] = {&probe, &accumulate, &cpu::portable::unary, &cpu::portable::binary, nullptr};

// Two arena buffers in turn; the last kernel writes the output.
class Builder {
public:
    Builder(size_t elements, uint32_t kernels)
        : spec("chain", 2 * bytes(elements)), kernels_(kernels), shape_{static_cast<int64_t>(elements)} {
        input_ = spec.add_storage("in", StorageKind::input, REEF_FLOAT32, shape_, 0, {});
        output_ = spec.add_storage("out", StorageKind::output, REEF_FLOAT32, shape_, 0, {});
        for (uint32_t i = 0; i < 2; i++)
            buffer_[i] = spec.add_storage("t", StorageKind::arena, REEF_FLOAT32, shape_, i * bytes(elements), {});
    }
    void add(const std::string& op, Attributes attributes, int64_t weight = -1) {
        uint32_t from = count_ == 0 ? input_ : buffer_[(count_ - 1) % 2];
        uint32_t to = count_ + 1 == kernels_ ? output_ : buffer_[count_ % 2];
        std::vector<uint32_t> args{from};
        if (weight >= 0)
            args.push_back(static_cast<uint32_t>(weight));
        args.push_back(to);
        std::vector<Access> access(args.size(), Access::read);
        access.back() = Access::write;
        spec.add_kernel("k" + std::to_string(count_++), op, args, access, std::move(attributes));
    }
    int64_t weight(std::mt19937_64& random) {
        std::vector<float> data(static_cast<size_t>(shape_[0]));
        for (float& value : data)
            value = std::uniform_real_distribution<float>(0.5f, 1.5f)(random);
        return spec.add_storage("w", StorageKind::weight, REEF_FLOAT32, shape_, 0, std::as_bytes(std::span(data)));
    }
    Chain finish(Device& device, uint64_t seed) {
        spec.set_inputs({input_});
        spec.set_outputs({output_});
        Chain chain{device.load(spec), std::vector<float>(static_cast<size_t>(shape_[0])), {}};
        std::mt19937_64 random(seed);
        for (float& value : chain.input)
            value = std::uniform_real_distribution<float>(-1, 1)(random);
        Slot slot(chain);
        auto context = device.make_context(chain.model);
        Runner(device).run(*context, chain.model->kernels(), slot.binding(), {});
        chain.expected = slot.output;
        return chain;
    }
    ModelSpec spec;

private:
    static size_t bytes(size_t elements) { return (elements * sizeof(float) + 63) / 64 * 64; }
    uint32_t kernels_;
    std::vector<int64_t> shape_;
    uint32_t input_, output_, buffer_[2], count_ = 0;
};

}  // namespace

void clear_records() {
    for (Record& record : records) {
        for (uint32_t block = 0; block < kBlocks; block++)
            record.begun[block] = 0, record.finished[block] = 0, record.order[block] = 0;
        record.in_fifo = 0;
    }
    most_inside = 0;
}

uint32_t begun(uint32_t id) {
    uint32_t sum = 0;
    for (const std::atomic<uint32_t>& count : records[id].begun)
        sum += count;
    return sum;
}

void wait_inside(int blocks) {
    while (inside.load() < blocks)
        sched_yield();
}

void check_exactly_once(uint32_t instances, uint32_t blocks) {
    for (uint32_t id = 0; id < instances; id++)
        for (uint32_t block = 0; block < blocks; block++)
            CHECK(records[id].finished[block] == 1);
}

cpu::OperatorTable operators() { return table; }

Chain probe_chain(Device& device, uint32_t first_id, uint32_t kernels, uint32_t blocks, const Behaviour& behaviour) {
    Builder builder(blocks * kBlockElements, kernels);
    for (uint32_t i = 0; i < kernels; i++)
        builder.add("probe", {{"id", int64_t{first_id + i}},
                              {"block_ns", static_cast<int64_t>(behaviour.block_ns)},
                              {"deaf", int64_t{behaviour.deaf}},
                              {"endless", int64_t{behaviour.endless}},
                              {"held", int64_t{behaviour.held}},
                              {"meets", int64_t{behaviour.meets}},
                              {"checks_before", int64_t{i > 0}}});
    clear_records();
    most_inside = 2;  // nobody holds or meets the run that makes the expected output
    released = true;
    Chain chain = builder.finish(device, first_id + 1);
    released = false;
    clear_records();
    return chain;
}

Chain arithmetic_chain(Device& device, uint32_t kernels, size_t elements, uint64_t seed) {
    Builder builder(elements, kernels);
    std::mt19937_64 random(seed);
    for (uint32_t i = 0; i < kernels; i++) {
        if (i % 3 == 2)
            builder.add("unary", {{"activation", std::string("tanh")}});
        else
            builder.add("binary", {{"function", std::string(i % 3 ? "mul" : "add")}}, builder.weight(random));
    }
    return builder.finish(device, seed);
}

CpuOptions options(uint32_t workers) { return {.isa = {"portable", operators()}, .workers = workers}; }

Slot::Slot(const Chain& chain) : input(chain.input), output(chain.input.size(), std::nanf("")) {}

void check_output(const Chain& chain, const Slot& slot) {
    CHECK(std::memcmp(chain.expected.data(), slot.output.data(), slot.output.size() * sizeof(float)) == 0);
}

void wait_for(Device& device, QueueId queue, uint32_t mark) {
    while (static_cast<int32_t>(device.retired(queue) - mark) < 0) {
        if (!device.arm())
            continue;
        pollfd event{device.event_fd(), POLLIN, 0};
        CHECK(poll(&event, 1, 60'000) == 1);  // a wake-up was lost, or a window never retires
    }
}

}  // namespace stress
