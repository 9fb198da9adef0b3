// SPDX-License-Identifier: Apache-2.0
// Runs one CPU operator without an engine: any instruction set, any order of blocks, any number of threads, and a
// checkpoint that becomes stale after a given number of looks. Built by harness.py from the kernels' object files.
#include <kernel.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

struct AttributeValue {
    std::string text;
    std::vector<double> numbers;
};

struct Freed {
    void operator()(void* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<void, Freed>;

Memory make(size_t bytes) { return Memory(std::aligned_alloc(64, (bytes / 64 + 1) * 64)); }

class Instance final : public reef::cpu::Spec {
public:
    std::vector<reef::cpu::TensorView> views;
    std::vector<std::string> names;
    std::vector<void*> args;
    std::map<std::string, AttributeValue> attributes;
    std::vector<Memory> memory;
    std::string error;
    reef::cpu::Kernel kernel{};

    ~Instance() = default;
};

const Instance& self(const reef::cpu::Spec* spec) { return *static_cast<const Instance*>(spec); }

const AttributeValue* find(const reef::cpu::Spec* spec, const char* name) {
    const auto& attributes = self(spec).attributes;
    auto found = attributes.find(name);
    return found == attributes.end() ? nullptr : &found->second;
}

// Runs blocks in the given order on `threads` threads; the calling one included. false: a block was abandoned.
bool run_blocks(Instance& instance, const uint32_t* order, unsigned threads, bool preemptible, const uint32_t* epoch) {
    const reef::cpu::Kernel& kernel = instance.kernel;
    std::atomic<uint32_t> next{0};
    std::atomic<bool> whole{true};
    auto work = [&] {
        Memory scratch = make(kernel.scratch_bytes);
        std::memset(scratch.get(), 0xFF, kernel.scratch_bytes);
        for (uint32_t i = next++; i < kernel.blocks; i = next++) {
            const reef::cpu::BlockArgs args{instance.args.data(), order[i], scratch.get()};
            if (!preemptible)
                kernel.run(kernel, args);
            else if (!kernel.run_preemptible(kernel, args, {epoch, 0}))
                whole = false;
        }
    };
    std::vector<std::thread> others;
    for (unsigned t = 1; t < threads; t++)
        others.emplace_back(work);
    work();
    for (std::thread& thread : others)
        thread.join();
    return whole;
}

}  // namespace

namespace reef::cpu {

uint32_t Spec::tensors() const { return static_cast<uint32_t>(self(this).views.size()); }
const TensorView& Spec::tensor(uint32_t index) const { return self(this).views.at(index); }

int64_t Spec::integer(const char* attribute, int64_t otherwise) const {
    const AttributeValue* value = find(this, attribute);
    return value ? static_cast<int64_t>(value->numbers.at(0)) : otherwise;
}

double Spec::number(const char* attribute, double otherwise) const {
    const AttributeValue* value = find(this, attribute);
    return value ? value->numbers.at(0) : otherwise;
}

const char* Spec::string(const char* attribute, const char* otherwise) const {
    const AttributeValue* value = find(this, attribute);
    return value ? value->text.c_str() : otherwise;
}

int Spec::integers(const char* attribute, int64_t* values, int room) const {
    const AttributeValue* value = find(this, attribute);
    if (!value)
        return -1;
    for (size_t i = 0; i < value->numbers.size() && i < static_cast<size_t>(room); i++)
        values[i] = static_cast<int64_t>(value->numbers[i]);
    return static_cast<int>(value->numbers.size());
}

int Spec::numbers(const char* attribute, double* values, int room) const {
    const AttributeValue* value = find(this, attribute);
    if (!value)
        return -1;
    for (size_t i = 0; i < value->numbers.size() && i < static_cast<size_t>(room); i++)
        values[i] = value->numbers[i];
    return static_cast<int>(value->numbers.size());
}

void* Spec::allocate(size_t bytes) {
    auto& memory = static_cast<Instance*>(this)->memory;
    memory.push_back(make(bytes));
    std::memset(memory.back().get(), 0, bytes);
    return memory.back().get();
}

void Spec::packed(uint32_t tensor) { static_cast<Instance*>(this)->args.at(tensor) = nullptr; }

bool Spec::fail(const char* format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    static_cast<Instance*>(this)->error = text;
    return false;
}

}  // namespace reef::cpu

extern "C" {

struct HarnessTensor {
    uint32_t dtype;
    uint32_t item;  // bytes
    uint32_t rank;
    int64_t shape[8];
    void* data;
    uint32_t constant;
    uint32_t written;
};

Instance* harness_new() { return new Instance; }
void harness_free(Instance* instance) { delete instance; }
const char* harness_error(const Instance* instance) { return instance->error.c_str(); }
uint32_t harness_blocks(const Instance* instance) { return instance->kernel.blocks; }
uint64_t harness_scratch(const Instance* instance) { return instance->kernel.scratch_bytes; }

void harness_text(Instance* instance, const char* name, const char* text) { instance->attributes[name].text = text; }

void harness_numbers(Instance* instance, const char* name, const double* values, uint32_t count) {
    instance->attributes[name].numbers.assign(values, values + count);
}

void harness_tensor(Instance* instance, const HarnessTensor* tensor) {
    reef::cpu::TensorView view{};
    view.name = "t";
    view.dtype = static_cast<reef::cpu::DType>(tensor->dtype);
    view.rank = tensor->rank;
    view.bytes = tensor->item;
    for (uint32_t i = 0; i < tensor->rank; i++) {
        view.shape[i] = tensor->shape[i];
        view.bytes *= static_cast<size_t>(tensor->shape[i]);
    }
    view.access = tensor->written ? reef::cpu::Access::write : reef::cpu::Access::read;
    view.constant = tensor->constant ? tensor->data : nullptr;
    instance->views.push_back(view);
    instance->args.push_back(tensor->data);
}

bool harness_create(Instance* instance, const char* isa, const char* op) {
    reef::cpu::OperatorTable table = reef::cpu::operators_portable();
#if defined(__x86_64__)
    if (std::strcmp(isa, "avx2") == 0)
        table = reef::cpu::operators_avx2();
    if (std::strcmp(isa, "avx512") == 0)
        table = reef::cpu::operators_avx512();
#endif
    for (; *table; table++)
        if (std::strcmp((*table)->name, op) == 0)
            return (*table)->create(*instance, instance->kernel);
    instance->error = std::string("no operator ") + op;
    return false;
}

bool harness_run(Instance* instance, const uint32_t* order, uint32_t threads, bool preemptible, bool stale) {
    const uint32_t epoch = stale ? 1 : 0;
    return run_blocks(*instance, order, threads, preemptible, &epoch);
}

// Seconds of each of `rounds` whole runs, on threads that stay between rounds, into `seconds`.
void harness_time(Instance* instance, uint32_t threads, bool preemptible, uint32_t rounds, double* seconds) {
    const reef::cpu::Kernel& kernel = instance->kernel;
    const uint32_t epoch = 0;
    std::atomic<uint32_t> round{0}, next{0}, finished{0};
    std::atomic<bool> over{false};
    auto drain = [&](void* scratch) {
        for (uint32_t i = next++; i < kernel.blocks; i = next++) {
            const reef::cpu::BlockArgs args{instance->args.data(), i, scratch};
            if (preemptible)
                kernel.run_preemptible(kernel, args, {&epoch, 0});
            else
                kernel.run(kernel, args);
        }
        finished++;
    };
    std::vector<std::thread> others;
    for (unsigned t = 1; t < threads; t++)
        others.emplace_back([&] {
            Memory scratch = make(kernel.scratch_bytes);
            for (uint32_t seen = 0;;) {
                while (round == seen && !over)
                    __builtin_ia32_pause();
                if (over)
                    return;
                seen = round;
                drain(scratch.get());
            }
        });
    Memory scratch = make(kernel.scratch_bytes);
    for (uint32_t r = 0; r < rounds; r++) {
        next = 0;
        finished = 0;
        const auto start = std::chrono::steady_clock::now();
        round++;
        drain(scratch.get());
        while (finished != threads)
            __builtin_ia32_pause();
        seconds[r] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
    over = true;
    for (std::thread& thread : others)
        thread.join();
}

// Seconds of each block alone, the least of `rounds`.
void harness_block_times(Instance* instance, uint32_t rounds, double* seconds) {
    const reef::cpu::Kernel& kernel = instance->kernel;
    Memory scratch = make(kernel.scratch_bytes);
    for (uint32_t r = 0; r < rounds; r++)
        for (uint32_t block = 0; block < kernel.blocks; block++) {
            const auto start = std::chrono::steady_clock::now();
            kernel.run(kernel, {instance->args.data(), block, scratch.get()});
            const double time = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
            seconds[block] = r == 0 ? time : std::min(seconds[block], time);
        }
}

// The longest time without a look at the checkpoint in each block (its begin and end count as looks), and the time of
// the whole block, the least of `rounds`. `evicting` bytes are read before each round, to empty the caches.
void harness_longest(Instance* instance, uint32_t rounds, uint64_t evicting, double* longest, double* seconds) {
    const reef::cpu::Kernel& kernel = instance->kernel;
    const uint32_t epoch = 0;
    Memory scratch = make(kernel.scratch_bytes);
    std::memset(scratch.get(), 0, kernel.scratch_bytes);
    std::vector<uint64_t> other(evicting / sizeof(uint64_t), 1);
    const auto begin = std::chrono::steady_clock::now();
    const uint64_t begin_ticks = reef::cpu::ticks();
    for (uint32_t r = 0; r < rounds; r++) {
        for (uint64_t& word : other)
            word += r;
        for (uint32_t block = 0; block < kernel.blocks; block++) {
            const uint64_t start = reef::cpu::ticks();
            reef::cpu::Probe probe{start, 0};
            kernel.run_preemptible(kernel, {instance->args.data(), block, scratch.get()}, {&epoch, 1, &probe});
            probe.pass();
            const auto gap = static_cast<double>(probe.longest), time = static_cast<double>(probe.last - start);
            longest[block] = r == 0 ? gap : std::min(longest[block], gap);
            seconds[block] = r == 0 ? time : std::min(seconds[block], time);
        }
    }
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begin;
    const double tick = passed.count() / static_cast<double>(reef::cpu::ticks() - begin_ticks);
    for (uint32_t block = 0; block < kernel.blocks; block++) {
        longest[block] *= tick;
        seconds[block] *= tick;
    }
}

}  // extern "C"
