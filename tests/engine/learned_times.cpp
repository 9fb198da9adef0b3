// SPDX-License-Identifier: Apache-2.0
// What is learned of kernels, on the whole device and on a part of it, where a unit holds more blocks than one. Prints
// "whole part" estimates after each step; test_kernel_times.py says what they must be.
#include "kernel_times.hpp"

#include <cstdio>

namespace {

constexpr uint32_t kUnits = 132, kPart = 16;

// A device whose units hold `held` blocks at once; 10 us a round.
struct Device {
    uint32_t blocks, held;
    uint64_t takes_ns(uint32_t units) const {
        const uint32_t room = units * held;
        return uint64_t{10'000} * ((blocks + room - 1) / room);
    }
};

void window(reef::KernelTimes& times, const Device& device, uint32_t units) {
    times.learn(0, 4, units, 4 * times.estimate_ns(0, units), 4 * device.takes_ns(units));
}

void show(const char* when, const reef::KernelTimes& times) {
    std::printf("%s %lu %lu\n", when, times.estimate_ns(0, kUnits), times.estimate_ns(0, kPart));
}

}  // namespace

int main() {
    const Device device{528, 4};
    reef::KernelTimes times;
    times.set({}, {528, 528, 528, 528}, kUnits);
    show("guess", times);
    window(times, device, kUnits);
    show("whole", times);
    for (int i = 0; i < 40; ++i) {
        window(times, device, kPart);
    }
    show("part", times);
    window(times, device, kUnits);
    show("again", times);
    for (int i = 0; i < 200; ++i) {
        times.learn(0, 4, kPart, 4 * times.estimate_ns(0, kPart), 0);
    }
    show("nothing", times);
    for (int i = 0; i < 200; ++i) {
        times.learn(0, 4, kPart, 1, uint64_t{1} << 40);
    }
    show("ages", times);
    reef::KernelTimes unseen;
    unseen.set({}, {528, 528, 528, 528}, kUnits);
    window(unseen, device, kPart);
    show("first", unseen);
    return 0;
}
