// SPDX-License-Identifier: Apache-2.0
#include "restorable.hpp"

#include <algorithm>
#include <array>

#include "operator_arguments.hpp"
#include "ranges.hpp"

namespace reef {
namespace {

const char* verb(Access access) {
    return access == Access::read ? "reads" : access == Access::write ? "writes" : "reads and writes";
}

// One instance: its arguments as byte ranges.
class Instance {
public:
    Instance(const ModelSpec& spec, const KernelSpec& kernel)
        : spec_(spec), kernel_(kernel), where_(spec.name() + ": kernel '" + kernel.name + "' (" + kernel.op + ")") {
        try {
            auto declared = operator_arguments(kernel.op, kernel.attributes, kernel.args.size());
            declared_ = declared.has_value();
            if (declared)
                arguments_ = std::move(*declared);
        } catch (const ModelError& error) {
            throw ModelError(where_ + ": " + error.what());
        }
        for (size_t i = 0; i < kernel.args.size(); i++) {
            if (!declared_)
                arguments_.push_back({"", kernel.access[i], false});
            else if (kernel.access[i] != arguments_[i].access)
                throw ModelError(where_ + ": the resource says that it " + verb(kernel.access[i]) + " '" +
                                 storage(i).name + "'; the operator " + verb(arguments_[i].access) + " it");
        }
    }

    std::vector<ByteRange> unsafe() {
        for (size_t i = 0; i < arguments_.size(); i++) {
            if (arguments_[i].access == Access::read)
                continue;
            if (arguments_[i].access == Access::read_write)
                save(begin(i), end(i), storage(i).kind);
            for (size_t j = 0; j < arguments_.size(); j++)
                if (j != i && storage(i).kind == storage(j).kind && begin(i) < end(j) && begin(j) < end(i))
                    overlap(i, j);
        }
        std::vector<ByteRange> ranges;
        for (StorageKind kind : {StorageKind::output, StorageKind::arena})
            for (const auto& [from, to] : saved_[static_cast<size_t>(kind)].all())
                ranges.push_back({kind, from, to - from});
        return ranges;
    }

private:
    const Storage& storage(size_t i) const { return spec_.storages()[kernel_.args[i]]; }
    uint64_t begin(size_t i) const { return spec_.offset(storage(i)); }
    uint64_t end(size_t i) const { return begin(i) + storage(i).bytes; }
    void save(uint64_t from, uint64_t to, StorageKind kind) { saved_[static_cast<size_t>(kind)].add(from, to); }

    // Argument i is written. Of an operator in the table the blocks are known to be independent, so what they share must be
    // element by element; another one may have an order among its blocks, which a unit keeps.
    void overlap(size_t i, size_t j) {
        const bool in_place = arguments_[j].in_place && begin(i) == begin(j) && end(i) == end(j) &&
                              element_bytes(storage(i).dtype) == element_bytes(storage(j).dtype);
        if (declared_ && !in_place)
            throw ModelError(where_ + " writes '" + storage(i).name + "', which overlaps '" + storage(j).name +
                             "' that it " + (arguments_[j].access == Access::read ? "reads" : "writes too") +
                             ": the result would depend on the order of its blocks");
        save(std::max(begin(i), begin(j)), std::min(end(i), end(j)), storage(i).kind);
    }

    const ModelSpec& spec_;
    const KernelSpec& kernel_;
    const std::string where_;
    bool declared_;
    std::vector<OperatorArgument> arguments_;
    std::array<Ranges, 4> saved_;  // by kind of storage
};

}  // namespace

std::vector<Unit> find_units(const ModelSpec& spec) {
    std::vector<Unit> units;
    for (uint32_t k = 0; k < spec.kernels().size(); k++) {
        Unit unit{k, Instance(spec, spec.kernels()[k]).unsafe(), 0};
        for (const ByteRange& range : unit.ranges)
            unit.bytes += range.bytes;
        if (unit.bytes != 0)
            units.push_back(std::move(unit));
    }
    return units;
}

}  // namespace reef
