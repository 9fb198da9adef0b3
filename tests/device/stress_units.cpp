// SPDX-License-Identifier: Apache-2.0
// Scenarios about what is begun again: one block a hundred times, and units, instances that are not restorable. They
// update in place, through an arena that is used again, and by atomic accumulation; however they are preempted the bits are
// those of an undisturbed run, and taken for restorable they are not.
#include <cstring>
#include <string>
#include <utility>

#include "cpu_context.hpp"
#include "scenarios.hpp"

namespace stress {

using namespace reef;

namespace {

constexpr int64_t kElements = 200'000;  // several snapshot pieces, many blocks
constexpr int64_t kSums = 50'048;

// One model with every kind of unit: t = in + w; u = t * w, where u lies where t lay; u = tanh(u); sums = in[0..] + 0;
// sums += every run of u, atomically; out = sums + tail of u.
ModelSpec unit_model(std::mt19937_64& random, bool endless) {
    const uint64_t bytes = (kElements * sizeof(float) + 63) / 64 * 64;
    ModelSpec spec("units", bytes + kSums * sizeof(float));
    std::vector<float> weight(kElements);
    for (float& value : weight)
        value = std::uniform_real_distribution<float>(0.5f, 1.5f)(random);
    const std::vector<int64_t> shape{kElements}, few{kSums};
    const uint32_t in = spec.add_storage("in", StorageKind::input, REEF_FLOAT32, shape, 0, {});
    const uint32_t out = spec.add_storage("out", StorageKind::output, REEF_FLOAT32, shape, 0, {});
    const uint32_t w = spec.add_storage("w", StorageKind::weight, REEF_FLOAT32, shape, 0,
                                        std::as_bytes(std::span<const float>(weight)));
    const uint32_t t = spec.add_storage("t", StorageKind::arena, REEF_FLOAT32, shape, 0, {});
    const uint32_t u = spec.add_storage("u", StorageKind::arena, REEF_FLOAT32, shape, 0, {});
    const uint32_t sums = spec.add_storage("sums", StorageKind::arena, REEF_FLOAT32, few, bytes, {});
    const uint32_t in_head = spec.add_storage("in.head", StorageKind::input, REEF_FLOAT32, few, 0, {}, in);
    const uint32_t out_head = spec.add_storage("out.head", StorageKind::output, REEF_FLOAT32, few, 0, {}, out);
    auto add = [&](const char* op, std::vector<uint32_t> args, Access last, Attributes attributes) {
        std::vector<Access> access(args.size(), Access::read);
        access.back() = last;
        spec.add_kernel("k" + std::to_string(spec.kernels().size()), op, std::move(args), std::move(access),
                        std::move(attributes));
    };
    const Attributes sum{{"function", std::string("add")}}, product{{"function", std::string("mul")}};
    add("binary", {in, w, t}, Access::write, sum);
    add("binary", {t, w, u}, Access::write, product);                                        // arena used again
    add("unary", {u, u}, Access::write, {{"activation", std::string("tanh")}});              // in place
    add("unary", {in_head, sums}, Access::write, {{"activation", std::string("sigmoid")}});  // restorable
    add("accumulate", {u, sums}, Access::read_write, {{"endless", int64_t{endless}}});       // atomic accumulation
    add("binary", {u, w, out}, Access::write, product);                                      // restorable
    add("binary", {out_head, sums, out_head}, Access::write, sum);                           // in place, in the slot
    spec.set_inputs({in});
    spec.set_outputs({out});
    return spec;
}

// Requests come in turns with two inputs: what an earlier one left in the context would show in the next one's answer.
struct Units {
    Units(Device& device, uint64_t seed, bool endless = false) {
        std::mt19937_64 random(seed);
        chain.model = other.model = device.load(unit_model(random, endless));
        auto context = device.make_context(chain.model);
        for (Chain* each : {&chain, &other}) {
            for (int64_t i = 0; i < kElements; i++)
                each->input.push_back(std::uniform_real_distribution<float>(-1, 1)(random));
            Slot slot(*each);
            Runner(device).run(*context, chain.model->kernels(), slot.binding(), {});
            each->expected = slot.output;
        }
        CHECK(chain.expected != other.expected);
    }
    const Chain& turn(uint32_t round) const { return round % 2 ? other : chain; }
    const CpuModel& model() const { return static_cast<const CpuModel&>(*chain.model); }
    uint64_t all_blocks() const {
        uint64_t sum = 0;
        for (const CpuKernel& instance : model().instances)
            sum += instance.kernel.blocks;
        return sum;
    }
    Chain chain, other;
};

// Finished or abandoned.
uint64_t blocks_begun(const Device& device) {
    std::vector<WorkerStatistics> units(kMaxWorkers);
    uint64_t sum = 0;
    for (uint32_t i = 0, count = device.statistics(units.data(), kMaxWorkers); i < count; i++)
        sum += units[i].blocks + units[i].abandoned;
    return sum;
}

// Each of the kernels is begun and interrupted several times, soon or late.
RunOptions often(const Arguments& arguments, uint32_t round, std::span<const uint32_t> kernels) {
    return {.preemptible = true,
            .interrupt_at = kernels,
            .interrupts = 5,
            .within_ns = 20'000u << round % 4 * 2,
            .seed = arguments.seed * 1000 + round};
}

}  // namespace

// Units are found, their snapshots have their size, and the answer is right however they are interrupted. Blocks were begun
// twice, so they were.
void units(const Arguments& arguments) {
    CpuDevice device(options(arguments.workers));
    Units units(device, arguments.seed);
    std::string found;
    std::vector<uint32_t> thrice;
    for (const CpuKernel& instance : units.model().instances) {
        found += instance.unit ? 'u' : '.';
        if (instance.unit)
            thrice.insert(thrice.end(), 3, static_cast<uint32_t>(found.size() - 1));
    }
    CHECK(found == ".uu.u.u");
    CHECK(units.model().facts().snapshot_bytes == kElements * sizeof(float));
    auto context = device.make_context(units.chain.model);
    Runner runner(device);
    const uint64_t before = blocks_begun(device);
    uint32_t preempted = 0;
    // On a machine that is busy with other things interruptions come late, between two requests: then there are more.
    auto begun_twice = [&](uint32_t rounds) { return blocks_begun(device) - before > rounds * units.all_blocks(); };
    uint32_t round = 0;
    for (; round < arguments.rounds || (!begun_twice(round) && round < 100 * arguments.rounds); round++) {
        Slot slot(units.turn(round));
        preempted += runner.run(*context, units.chain.model->kernels(), slot.binding(), often(arguments, round, thrice))
                         .preempted;
        check_output(units.turn(round), slot);
    }
    CHECK(preempted > 0);
    CHECK(begun_twice(round));
}

// The same without the treatment, by a model from which the units were struck: the answer must come out wrong, or the
// scenario above proves nothing.
void units_untreated(const Arguments& arguments) {
    CpuDevice device(options(arguments.workers));
    Units units(device, arguments.seed);
    CpuModel& model = const_cast<CpuModel&>(units.model());
    for (CpuKernel& instance : model.instances) {
        if (!instance.unit)
            continue;
        const std::vector<uint32_t> thrice(3, static_cast<uint32_t>(&instance - model.instances.data()));
        const CpuUnit* treated = std::exchange(instance.unit, nullptr);
        auto context = device.make_context(units.chain.model);
        Runner runner(device);
        uint32_t wrong = 0;
        for (uint32_t round = 0; round < 100 * arguments.rounds && wrong == 0; round++) {
            Slot slot(units.chain);
            runner.run(*context, units.chain.model->kernels(), slot.binding(), often(arguments, round, thrice));
            wrong += std::memcmp(units.chain.expected.data(), slot.output.data(), kElements * sizeof(float)) != 0;
        }
        CHECK(wrong == 1);
        instance.unit = treated;
    }
}

// Windows of any length, two in flight, some of which finish every block they begin and some of which ignore the epoch:
// the snapshot is taken, kept, used and dropped across all of them. Some requests are given up on the way, and the next one
// takes their context.
void unit_windows(const Arguments& arguments) {
    CpuDevice device(options(arguments.workers));
    Units units(device, arguments.seed);
    const uint32_t kernels = units.chain.model->kernels();
    auto context = device.make_context(units.chain.model);
    std::mt19937_64 random(arguments.seed);
    uint32_t epoch = 0, mark = device.retired(1);
    for (uint32_t round = 0; round < arguments.rounds; round++) {
        Slot slot(units.turn(round));
        device.clear_record(*context);
        // In the first unit, where what was saved for it would be the first thing that the next request finds.
        const bool given_up = round % 3 == 2;
        for (uint32_t tries = 0; device.kernels_done(*context) < (given_up ? 2 : kernels); tries++) {
            if (given_up && device.kernels_done(*context) == 1)
                break;
            device.write_epoch(1, ++epoch);
            // A plain one comes alone: it would not care that the one before it went stale.
            const bool preemptible = random() % 8 != 0;
            for (uint32_t at = device.kernels_done(*context), n = preemptible ? 2 : 1; n > 0 && at < kernels; n--) {
                const uint32_t last = at + 1 + static_cast<uint32_t>(random() % (kernels - at));
                device.launch(1, {.context = context.get(),
                                  .binding = slot.binding(),
                                  .first = at,
                                  .last = last,
                                  .epoch = epoch,
                                  .preemptible = preemptible,
                                  .mark = ++mark,
                                  .finish_blocks = random() % 4 == 0});
                at = last;
            }
            const uint64_t until = device.now_ns() + random() % 150'000;
            while (device.now_ns() < until) {
            }
            device.write_epoch(1, ++epoch);
            wait_for(device, 1, mark);
            CHECK(tries < 10'000);
        }
        if (!given_up)
            check_output(units.turn(round), slot);
    }
}

// A unit of which no block ever finishes unless it is let. Many interruptions come before a worker has begun a block, on a
// busy machine most: those shield nothing.
void unit_shield(const Arguments& arguments) {
    CpuOptions how = options(arguments.workers);
    how.shield_after = 5;
    CpuDevice device(how);
    Units units(device, arguments.seed, true);
    auto context = device.make_context(units.chain.model);
    Runner runner(device);
    for (uint32_t round = 0; round < arguments.rounds; round++) {
        Slot slot(units.turn(round));
        const RunReport report = runner.run(
            *context, units.chain.model->kernels(), slot.binding(),
            {.preemptible = true, .interrupts = 20'000, .within_ns = 200'000, .seed = arguments.seed + round});
        check_output(units.turn(round), slot);
        CHECK(report.preempted >= how.shield_after && report.preempted < 20'000);
    }
}

// One block of each worker, abandoned a hundred times in a row, each time in its middle; then all finish once.
void same_block(const Arguments& arguments) {
    CpuOptions how = options(arguments.workers);
    how.shield_after = 1'000'000;
    CpuDevice device(how);
    const uint32_t blocks = arguments.workers;
    Chain chain = probe_chain(device, 0, 2, blocks, {.held = true});
    auto context = device.make_context(chain.model);
    for (uint32_t round = 0; round < arguments.rounds; round++) {
        Slot slot(chain);
        clear_records();
        released = false;
        device.clear_record(*context);
        uint32_t epoch = 1000 * round, mark = device.retired(1);
        for (uint32_t times = 0; times < 100; times++) {
            device.write_epoch(1, ++epoch);
            device.launch(1, {context.get(), slot.binding(), 0, 2, epoch, true, ++mark});
            wait_inside(static_cast<int>(blocks));
            device.write_epoch(1, ++epoch);
            wait_for(device, 1, mark);
            CHECK(inside == 0 && device.kernels_done(*context) == 0);
        }
        for (uint32_t block = 0; block < blocks; block++)
            CHECK(records[0].begun[block] == 100 && records[0].finished[block] == 0);
        released = true;
        device.write_epoch(1, ++epoch);
        device.launch(1, {context.get(), slot.binding(), 0, 2, epoch, true, ++mark});
        wait_for(device, 1, mark);
        check_exactly_once(2, blocks);
        check_output(chain, slot);
    }
}

}  // namespace stress
