// SPDX-License-Identifier: Apache-2.0
// The runtime of kernels compiled for the host: fibers, meetings, asynchronous copies, and a hook to preempt at any check.
#include "fibers.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#if defined(__F16C__)
#include <immintrin.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace reef_host {

thread_local Thread* current = nullptr;

namespace {

struct Copy {
    void* to;
    const void* from;
    uint64_t group;
};

#if defined(__x86_64__)
using Machine = void*;  // the stack pointer; everything else is on the stack
#else
using Machine = ucontext_t;
#endif

struct Fiber : Thread {
    Meeting* waits = nullptr;
    uint64_t round = 0;
    bool ended = false;
    uint64_t group = 0;
    std::vector<Copy> copies;
    Machine machine{};
    std::unique_ptr<unsigned char[]> stack;
};

thread_local Machine scheduler;
thread_local void (*entry)(const void*, const void*) = nullptr;
thread_local const void* entry_args = nullptr;
thread_local const void* entry_place = nullptr;

// Lets a test preempt at a chosen load of the queue epoch: at the countdown's end the word is changed.
struct Interruption {
    const uint32_t* watched = nullptr;
    uint64_t countdown = 0;
    uint64_t loads = 0;
};
Interruption interruption;

Fiber& self() { return *static_cast<Fiber*>(current); }

[[noreturn]] void fail(const char* what) {
    std::fprintf(stderr, "GPU emulation: block %d thread %d: %s\n", current ? current->block->index : -1,
                 current ? current->index : -1, what);
    std::abort();
}

#if defined(__x86_64__)
// Saves the callee-saved registers and the stack pointer, then goes on where `to` was saved.
__attribute__((naked, noinline)) void exchange(Machine*, Machine*) {
    asm volatile("pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15\n"
                 "movq %rsp, (%rdi)\n"
                 "movq (%rsi), %rsp\n"
                 "popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp\n"
                 "ret\n");
}
#else
void exchange(Machine* from, Machine* to) { swapcontext(from, to); }
#endif

void pause() { exchange(&self().machine, &scheduler); }

void leave(Meeting& meeting) {
    meeting.members--;
    if (meeting.arrived != 0)
        fail("left while others wait at a barrier");
}

void begin() {
    entry(entry_args, entry_place);
    Fiber* fiber = &self();
    if (!fiber->copies.empty())
        fail("left with asynchronous copies under way");
    fiber->ended = true;
    leave(fiber->block->everyone);
    leave(fiber->block->cluster->everyone);
    leave(warp().everyone);
    pause();
}

void prepare(Fiber& fiber) {
    constexpr size_t stack_bytes = 96 << 10;
    if (!fiber.stack)
        fiber.stack = std::make_unique<unsigned char[]>(stack_bytes);
#if defined(__x86_64__)
    auto top = reinterpret_cast<uintptr_t>(fiber.stack.get() + stack_bytes) & ~uintptr_t{15};
    auto* slot = reinterpret_cast<void**>(top) - 1;
    *--slot = reinterpret_cast<void*>(&begin);  // where `ret` goes, with the alignment that a call leaves
    fiber.machine = slot - 6;
    std::memset(slot - 6, 0, 6 * sizeof(void*));
#else
    getcontext(&fiber.machine);
    fiber.machine.uc_stack.ss_sp = fiber.stack.get();
    fiber.machine.uc_stack.ss_size = stack_bytes;
    fiber.machine.uc_link = nullptr;
    makecontext(&fiber.machine, &begin, 0);
#endif
}

void run_cluster(Cluster& cluster, int blocks, std::vector<Fiber>& fibers, int threads) {
    int warps = (threads + 31) / 32;
    std::vector<Warp> all(static_cast<size_t>(blocks) * warps);
    cluster.everyone = {blocks * threads, 0, 0};
    for (int b = 0; b < blocks; b++) {
        Block& block = cluster.blocks[b];
        block.everyone = {threads, 0, 0};
        block.warps = &all[static_cast<size_t>(b) * warps];
        for (int w = 0; w < warps; w++)
            block.warps[w].everyone = {std::min(32, threads - w * 32), 0, 0};
    }
    for (int b = 0; b < blocks; b++) {
        for (int t = 0; t < threads; t++) {
            Fiber& fiber = fibers[b * threads + t];
            fiber.index = t;
            fiber.block = &cluster.blocks[b];
            fiber.waits = nullptr;
            fiber.ended = false;
            fiber.copies.clear();
            prepare(fiber);
        }
    }
    for (int running = blocks * threads; running > 0;) {
        bool moved = false;
        for (int i = 0; i < blocks * threads; i++) {
            Fiber& fiber = fibers[i];
            if (fiber.ended || (fiber.waits && fiber.waits->round == fiber.round))
                continue;
            fiber.waits = nullptr;
            current = &fiber;
            exchange(&scheduler, &fiber.machine);
            moved = true;
            if (fiber.ended)
                running--;
        }
        if (!moved)
            fail("no thread can go on: a barrier was not reached by all");
    }
    current = nullptr;
}

}  // namespace

void wait(Meeting& meeting) {
    if (++meeting.arrived == meeting.members) {
        meeting.arrived = 0;
        meeting.round++;
        return;
    }
    self().waits = &meeting;
    self().round = meeting.round;
    pause();
}

void queue_copy(void* to, const void* from) { self().copies.push_back({to, from, self().group}); }
void commit_copies() { self().group++; }

void land_copies(uint64_t pending) {
    auto& copies = self().copies;
    size_t kept = 0;
    for (Copy& copy : copies) {
        if (copy.group + pending >= self().group) {
            copies[kept++] = copy;
        } else if (copy.from) {
            std::memcpy(copy.to, copy.from, 16);
        } else {
            std::memset(copy.to, 0, 16);
        }
    }
    copies.resize(kept);
}

uint32_t load_word(const uint32_t* word) {
    if (word == interruption.watched) {
        interruption.loads++;
        if (interruption.loads == interruption.countdown)
            *const_cast<uint32_t*>(word) += 1;
    }
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}

float half_to_float(uint16_t half) {
#if defined(__F16C__)
    return _cvtsh_ss(half);
#else
    uint32_t sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31, fraction = half & 1023;
    if (exponent == 0) {
        float value = static_cast<float>(fraction) * 0x1p-24f;
        return sign ? -value : value;
    }
    uint32_t bits =
        exponent == 31 ? sign | 0x7f800000u | fraction << 13 : sign | (exponent + 112) << 23 | fraction << 13;
    return __builtin_bit_cast(float, bits);
#endif
}

uint16_t float_to_half(float value) {
#if defined(__F16C__)
    return static_cast<uint16_t>(_cvtss_sh(value, 0));
#else
    uint32_t bits = __builtin_bit_cast(uint32_t, value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return static_cast<uint16_t>(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u)
        return static_cast<uint16_t>(sign | 0x7c00u);
    if (magnitude < 0x38800000u) {
        float scaled =
            __builtin_bit_cast(float, magnitude) + 0.5f;  // one ulp of 0.5 is 2^-24, the step of a subnormal half
        return static_cast<uint16_t>(sign | (__builtin_bit_cast(uint32_t, scaled) - 0x3f000000u));
    }
    uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1);
    return static_cast<uint16_t>(sign | (rounded - 0x38000000u) >> 13);
#endif
}

}  // namespace reef_host

// Runs the blocks in ascending or, so that no order is relied upon, descending order.
extern "C" void reef_host_launch(void (*kernel)(const void*, const void*), int blocks, int threads, int cluster,
                                 int shared_bytes, int descending, const void* args, const void* place) {
    using namespace reef_host;
    static thread_local std::vector<Fiber> fibers;
    if (fibers.size() < static_cast<size_t>(cluster * threads))
        fibers.resize(cluster * threads);
    entry = kernel;
    entry_args = args;
    entry_place = place;
    std::vector<Block> members(cluster);
    Cluster group{members.data(), {}};
    std::vector<unsigned char> memory(static_cast<size_t>(cluster) * (shared_bytes + 256) + 128);
    auto base = (reinterpret_cast<uintptr_t>(memory.data()) + 127) & ~uintptr_t{127};
    size_t stride = (shared_bytes + 127) / 128 * 128;
    for (int first = 0; first < blocks; first += cluster) {
        int start = descending ? blocks - cluster - first : first;
        std::memset(memory.data(), 0xff, memory.size());  // NaN as a float and as a half
        for (int b = 0; b < cluster; b++) {
            Block& block = group.blocks[b];
            block.index = start + b;
            block.rank = b;
            block.cluster = &group;
            block.memory = reinterpret_cast<unsigned char*>(base + b * stride);
        }
        run_cluster(group, cluster, fibers, threads);
    }
}

// Counts the loads of `word` from now on; at load `countdown` (0: never) the word is bumped. Returns the loads so far.
extern "C" uint64_t reef_host_interrupt(const uint32_t* word, uint64_t countdown) {
    uint64_t loads = reef_host::interruption.loads;
    reef_host::interruption = {word, countdown, 0};
    return loads;
}
