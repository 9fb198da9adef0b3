// SPDX-License-Identifier: Apache-2.0
// Real-time work is near (Device::expect): the workers stay awake for it, and bring the model's weights near meanwhile.
//
// They do so as ordinary threads that yield all the time, so a client that fills its tensor on the same processor is not
// kept from it, and look for work between two pieces. Sleeping costs more than the sleep: a processor that has nothing to do is given away, and
// getting it back takes tens of microseconds, on a virtual machine more.
#pragma once
#include <atomic>
#include <cstdint>

namespace reef {

class CpuContext;

class CpuExpectation {
public:
    // ---- engine thread; until_ns 0: not any more
    void set(const CpuContext* context, uint64_t until_ns);

    // ---- loader thread, before the context's memory goes
    void forget(const CpuContext& context);

    // ---- workers
    uint64_t until_ns() const { return until_ns_.load(std::memory_order_seq_cst); }
    // Brings one more piece near. False: all of them are.
    bool bring_near();

private:
    std::atomic<uint64_t> until_ns_ = 0;
    std::atomic<const CpuContext*> context_ = nullptr;
    std::atomic<uint32_t> next_ = 0;    // piece
    std::atomic<uint32_t> inside_ = 0;  // workers that may be looking at the context
};

}  // namespace reef
