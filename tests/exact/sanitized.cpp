// SPDX-License-Identifier: Apache-2.0
// Whole networks on the CPU device, device and kernels built with a sanitizer: undisturbed, interrupted at every kernel and
// at random instants, two side by side under real-time requests, and cancelled. Every answer is compared bit for bit.
// usage: sanitized WORKERS ROUNDS MODEL...; a model is what sanitized_networks.py writes: MODEL.txt, words, and MODEL.bin, bytes.
#include <poll.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <stdexcept>

#include "cpu_device.hpp"
#include "runner.hpp"

using namespace reef;

namespace {

class File {
public:
    explicit File(const std::string& path) : words_(path + ".txt") {
        std::ifstream bytes(path + ".bin", std::ios::binary);
        bytes_.assign(std::istreambuf_iterator<char>(bytes), {});
    }
    std::string word() {
        std::string word;
        if (!(words_ >> word))
            throw std::runtime_error("the model ends too early");
        return word;
    }
    int64_t number() { return std::stoll(word()); }
    std::vector<int64_t> numbers() {
        std::vector<int64_t> list(static_cast<size_t>(number()));
        for (int64_t& value : list)
            value = number();
        return list;
    }
    std::span<const std::byte> bytes() {
        const auto offset = static_cast<size_t>(number()), count = static_cast<size_t>(number());
        return std::as_bytes(std::span(bytes_).subspan(offset, count));
    }
    Attribute attribute() {
        const std::string type = word();
        if (type == "i")
            return number();
        if (type == "f")
            return std::stod(word());
        if (type == "s")
            return word();
        if (type == "I")
            return numbers();
        std::vector<double> list(static_cast<size_t>(number()));
        for (double& value : list)
            value = std::stod(word());
        return list;
    }

private:
    std::ifstream words_;
    std::vector<char> bytes_;
};

std::vector<uint32_t> narrow(const std::vector<int64_t>& list) { return {list.begin(), list.end()}; }

struct Network {
    explicit Network(const std::string& path) : spec("none", 0) {
        File file(path);
        const std::string name = file.word();
        spec = ModelSpec(name, static_cast<uint64_t>(file.number()));
        for (int64_t count = file.number(); count > 0; count--) {
            const auto kind = static_cast<StorageKind>(file.number());
            const auto dtype = static_cast<reef_dtype>(file.number());
            const std::vector<int64_t> shape = file.numbers();
            const auto offset = static_cast<uint64_t>(file.number());
            const int64_t base = file.number();
            spec.add_storage("s" + std::to_string(spec.storages().size()), kind, dtype, shape, offset, file.bytes(),
                             base);
        }
        for (int64_t count = file.number(); count > 0; count--) {
            const std::string op = file.word();
            const std::vector<uint32_t> args = narrow(file.numbers());
            std::vector<Access> access;
            for (int64_t value : file.numbers())
                access.push_back(static_cast<Access>(value));
            Attributes attributes;
            for (int64_t left = file.number(); left > 0; left--) {
                const std::string key = file.word();
                attributes[key] = file.attribute();
            }
            spec.add_kernel("k" + std::to_string(spec.kernels().size()), op, args, access, attributes);
        }
        spec.set_inputs(narrow(file.numbers()));
        spec.set_outputs(narrow(file.numbers()));
        inputs.resize(spec.input_bytes());
        for (uint32_t index : spec.inputs()) {
            const auto bytes = file.bytes();
            std::memcpy(inputs.data() + spec.offset(spec.storages()[index]), bytes.data(), bytes.size());
        }
    }
    uint32_t kernels() const { return static_cast<uint32_t>(spec.kernels().size()); }
    ModelSpec spec;
    std::vector<std::byte> inputs;
    std::vector<std::byte> expected;
};

CpuDevice make_device(uint32_t workers) {
    return CpuDevice({.isa = {"portable", cpu::operators_portable()}, .workers = workers});
}

// A request of a network on a device.
struct Request {
    Request(Device& d, const Network& n, QueueId q)
        : device(d), network(n), queue(q), inputs(n.inputs), outputs(n.spec.output_bytes(), std::byte{0x5a}),
          context(d.make_context(d.load(n.spec))), mark(d.retired(q)) {}
    Binding binding() { return {inputs.data(), outputs.data()}; }
    bool over() const { return device.kernels_done(*context) == network.kernels(); }
    void launch(bool preemptible) {
        device.launch(queue, {.context = context.get(),
                              .binding = binding(),
                              .first = device.kernels_done(*context),
                              .last = network.kernels(),
                              .epoch = epoch,
                              .preemptible = preemptible,
                              .mark = ++mark});
    }
    void preempt() { device.write_epoch(queue, ++epoch); }
    void wait() {
        while (device.retired(queue) != mark) {
            if (!device.arm())
                continue;
            pollfd event{device.event_fd(), POLLIN, 0};
            if (poll(&event, 1, 120'000) != 1)
                fail("a window never retired");
        }
    }
    void check() const {
        for (uint32_t index : network.spec.outputs()) {
            const Storage& storage = network.spec.storages()[index];
            const uint64_t at = network.spec.offset(storage);
            if (std::memcmp(outputs.data() + at, network.expected.data() + at, storage.bytes) != 0)
                fail("other bits than an undisturbed run");
        }
    }
    [[noreturn]] void fail(const char* what) const {
        std::fprintf(stderr, "%s: %s\n", network.spec.name().c_str(), what);
        std::_Exit(1);
    }
    Device& device;
    const Network& network;
    const QueueId queue;
    std::vector<std::byte> inputs, outputs;
    std::unique_ptr<Context> context;
    uint32_t mark, epoch = 0;
};

void undisturbed(Network& network) {
    CpuDevice device = make_device(1);
    Request request(device, network, kRealTimeQueue);
    request.launch(false);
    request.wait();
    network.expected = request.outputs;
}

uint32_t interrupted(const Network& network, uint32_t workers, uint32_t rounds) {
    CpuDevice device = make_device(workers);
    Request request(device, network, 1);
    Runner runner(device);
    std::vector<uint32_t> all(network.kernels());
    for (uint32_t kernel = 0; kernel < all.size(); kernel++)
        all[kernel] = kernel;
    uint32_t preempted = 0;
    for (uint32_t round = 0; round < rounds; round++) {
        std::fill(request.outputs.begin(), request.outputs.end(), std::byte{0x5a});
        const std::span<const uint32_t> at = round % 2 ? std::span<const uint32_t>{} : all;
        preempted += runner
                         .run(*request.context, network.kernels(), request.binding(),
                              {.preemptible = true,
                               .interrupt_at = at,
                               .interrupts = 25,
                               .within_ns = round % 2 ? 3'000'000u : 300'000u,
                               .seed = round})
                         .preempted;
        request.check();
    }
    return preempted;
}

// Real-time requests of the first network over two others side by side, some of which are cancelled.
uint32_t storm(const std::vector<Network>& networks, uint32_t workers, uint32_t rounds) {
    CpuDevice device = make_device(workers);
    Request urgent(device, networks[0], kRealTimeQueue);
    Request first(device, networks[1 % networks.size()], 1), second(device, networks[2 % networks.size()], 2);
    std::mt19937_64 random(workers);
    uint32_t answers = 0;
    for (uint32_t round = 0; round < rounds; round++) {
        for (Request* request : {&first, &second}) {
            if (device.retired(request->queue) != request->mark)
                continue;
            if (request->over()) {
                request->check();
                answers++;
            }
            if (request->over() || random() % 16 == 0) {  // answered, or cancelled
                std::fill(request->outputs.begin(), request->outputs.end(), std::byte{0x5a});
                device.clear_record(*request->context);
            }
            request->preempt();
            request->launch(true);
        }
        const uint64_t until = device.now_ns() + random() % 5'000'000;
        while (device.now_ns() < until) {
        }
        const bool preempts = random() % 4 != 0;
        if (preempts)
            for (Request* request : {&first, &second})
                request->preempt();
        device.clear_record(*urgent.context);
        urgent.launch(false);
        urgent.wait();
        urgent.check();
        if (preempts)
            for (Request* request : {&first, &second})
                request->wait();
    }
    for (Request* request : {&first, &second}) {
        request->wait();
        while (!request->over()) {
            request->preempt();
            request->launch(true);
            request->wait();
        }
        request->check();
        answers++;
    }
    return answers;
}

}  // namespace

int main(int count, char** words) {
    if (count < 4)
        return 2;
    const auto workers = static_cast<uint32_t>(std::stoul(words[1])),
               rounds = static_cast<uint32_t>(std::stoul(words[2]));
    std::vector<Network> networks(words + 3, words + count);
    for (Network& network : networks) {
        undisturbed(network);
        const uint32_t preempted = interrupted(network, workers, rounds);
        std::printf("%s: %u kernels, %u preemptions\n", network.spec.name().c_str(), network.kernels(), preempted);
        if (preempted == 0)
            return 1;
    }
    std::printf("storm: %u best-effort answers over %u real-time ones\n", storm(networks, workers, 10 * rounds),
                10 * rounds);
    return 0;
}
