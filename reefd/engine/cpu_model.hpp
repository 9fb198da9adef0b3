// SPDX-License-Identifier: Apache-2.0
// A model loaded on the CPU device: its kernel instances, and where each argument lies.
#pragma once
#include <kernel.hpp>

#include "cpu_spec.hpp"
#include "model.hpp"
#include "restorable.hpp"

namespace reef {

// An argument of a kernel instance: `offset` bytes into the area of its kind; weights are addresses.
struct CpuArgument {
    StorageKind kind;
    uint64_t offset;
    const std::byte* constant;  // null for a packed weight
};

inline constexpr uint64_t kSnapshotPiece = 64 << 10;  // bytes that are copied between two looks at the epoch

// An instance that is not restorable: what is saved before its first block, and put back before it is begun again.
struct CpuUnit {
    std::vector<ByteRange> ranges;
    uint32_t pieces;  // of kSnapshotPiece bytes, all ranges one behind the other
};

struct CpuKernel {
    cpu::Kernel kernel;
    uint32_t first_argument;  // into arguments
    uint32_t arguments;
    const CpuUnit* unit;  // null: restorable
};

class CpuModel final : public DeviceModel {
public:
    // Throws ModelError with the kernel's name and the reason.
    CpuModel(const ModelSpec& spec, cpu::OperatorTable operators);

    std::vector<CpuKernel> instances;
    std::vector<CpuArgument> arguments;
    size_t scratch_bytes = 0;  // the most that any instance needs
    // What the instances read that no request changes, in the order in which they do, in pieces that are read in microseconds.
    std::vector<std::span<const std::byte>> weights;

private:
    void add_weights(std::span<const std::byte> bytes);

    KernelMemory memory_;
    std::vector<CpuUnit> units_;
    std::vector<std::shared_ptr<const std::byte>> constants_;  // weights that were not packed
};

}  // namespace reef
