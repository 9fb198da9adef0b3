// SPDX-License-Identifier: Apache-2.0
#include "cpu_model.hpp"

#include <algorithm>
#include <set>

namespace reef {
namespace {

constexpr size_t kWeightPiece = 32 << 10;
constexpr uint64_t kMaxModelBlocks = 1u << 30;  // their bits are numbered with 32 bits

const cpu::Operator& find_operator(cpu::OperatorTable operators, const ModelSpec& spec, const KernelSpec& kernel) {
    for (cpu::OperatorTable entry = operators; *entry; entry++)
        if (kernel.op == (*entry)->name)
            return **entry;
    throw ModelError(spec.name() + ": kernel '" + kernel.name + "': the CPU device has no operator '" + kernel.op +
                     "'");
}

}  // namespace

CpuModel::CpuModel(const ModelSpec& spec, cpu::OperatorTable operators) : DeviceModel(spec) {
    const std::vector<Unit> units = spec.check();
    for (const Unit& unit : units) {
        const uint64_t pieces = (unit.bytes + kSnapshotPiece - 1) / kSnapshotPiece;
        if (pieces > cpu::kMaxBlocks)
            throw ModelError(spec.name() + ": kernel '" + spec.kernels()[unit.kernel].name + "' updates " +
                             std::to_string(unit.bytes) + " bytes in place, too many to save");
        units_.push_back({unit.ranges, static_cast<uint32_t>(pieces)});
        facts_.snapshot_bytes = std::max(facts_.snapshot_bytes, unit.bytes);
    }
    size_t next_unit = 0;
    uint64_t all_blocks = 0;
    std::set<uint32_t> kept;
    size_t packed = 0;
    for (const KernelSpec& kernel : spec.kernels()) {
        CpuKernel instance{};
        CpuSpec view(spec, kernel, memory_);
        view.create(find_operator(operators, spec, kernel), instance.kernel);
        instance.first_argument = static_cast<uint32_t>(arguments.size());
        instance.arguments = static_cast<uint32_t>(kernel.args.size());
        for (uint32_t i = 0; i < instance.arguments; i++) {
            const Storage& storage = spec.storages()[kernel.args[i]];
            const std::byte* constant = view.packed(i) ? nullptr : storage.data.get();
            arguments.push_back({storage.kind, spec.offset(storage), constant});
            if (constant && kept.insert(kernel.args[i]).second) {
                constants_.push_back(storage.data);  // of a view: holds its base
                facts_.weight_bytes += storage.bytes;
                add_weights({constant, storage.bytes});
            }
        }
        for (; packed < memory_.pieces().size(); packed++)
            add_weights(memory_.pieces()[packed]);
        if (next_unit < units.size() && units[next_unit].kernel == instances.size())
            instance.unit = &units_[next_unit++];
        scratch_bytes = std::max(scratch_bytes, instance.kernel.scratch_bytes);
        all_blocks += instance.kernel.blocks;
        if (all_blocks > kMaxModelBlocks)
            throw ModelError(spec.name() + ": more than " + std::to_string(kMaxModelBlocks) + " blocks");
        facts_.blocks.push_back(instance.kernel.blocks);
        instances.push_back(instance);
    }
    facts_.weight_bytes += memory_.bytes();
}

void CpuModel::add_weights(std::span<const std::byte> bytes) {
    for (; !bytes.empty(); bytes = bytes.subspan(std::min(bytes.size(), kWeightPiece)))
        weights.push_back(bytes.first(std::min(bytes.size(), kWeightPiece)));
}

}  // namespace reef
