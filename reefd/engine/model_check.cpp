// SPDX-License-Identifier: Apache-2.0
// The checks of a whole model: every kernel instance is restorable, and nothing is read before it was written.
#include <algorithm>
#include <map>

#include "model.hpp"

namespace reef {
namespace {

bool writes(Access access) { return access != Access::read; }

// Inputs, outputs and the arena never overlap each other, nor do weights what is written.
bool overlap(const ModelSpec& spec, const Storage& a, const Storage& b) {
    uint64_t at_a = spec.offset(a), at_b = spec.offset(b);
    return a.kind == b.kind && at_a < at_b + b.bytes && at_b < at_a + a.bytes;
}

void check_restorable(const ModelSpec& spec, const KernelSpec& kernel) {
    const std::vector<Storage>& storages = spec.storages();
    const std::string where = spec.name() + ": kernel '" + kernel.name + "' (" + kernel.op + ")";
    for (size_t i = 0; i < kernel.args.size(); i++) {
        if (!writes(kernel.access[i]))
            continue;
        const Storage& written = storages[kernel.args[i]];
        if (kernel.access[i] == Access::read_write)
            throw ModelError(where + " updates '" + written.name +
                             "' in place; it could not be restarted after a preemption");
        for (size_t j = 0; j < kernel.args.size(); j++) {
            if (j == i)
                continue;
            const Storage& other = storages[kernel.args[j]];
            if (overlap(spec, written, other))
                throw ModelError(where + " writes '" + written.name + "', which overlaps '" + other.name +
                                 "' that it " + (writes(kernel.access[j]) ? "writes too" : "reads") +
                                 "; it could not be restarted after a preemption");
        }
    }
}

// A set of disjoint byte ranges that merges neighbours.
class Ranges {
public:
    void add(uint64_t begin, uint64_t end) {
        auto next = ranges_.upper_bound(begin);
        if (next != ranges_.begin() && std::prev(next)->second >= begin) {
            --next;
            begin = next->first;
        }
        while (next != ranges_.end() && next->first <= end) {
            end = std::max(end, next->second);
            next = ranges_.erase(next);
        }
        ranges_[begin] = end;
    }
    bool contains(uint64_t begin, uint64_t end) const {
        auto next = ranges_.upper_bound(begin);
        return next != ranges_.begin() && std::prev(next)->second >= end;
    }

private:
    std::map<uint64_t, uint64_t> ranges_;
};

}  // namespace

void ModelSpec::check() const {
    if (kernels_.empty())
        throw ModelError(name_ + ": has no kernels");
    if (outputs_.empty())
        throw ModelError(name_ + ": has no outputs");
    size_t inputs = 0, outputs = 0;  // also those added after set_inputs and set_outputs, which have no place yet
    for (const Storage& storage : storages_) {
        if (storage.base >= 0)
            continue;
        inputs += storage.kind == StorageKind::input;
        outputs += storage.kind == StorageKind::output;
    }
    if (inputs != inputs_.size())
        throw ModelError(name_ + ": an input is not listed");
    if (outputs != outputs_.size())
        throw ModelError(name_ + ": an output is not listed");
    Ranges arena, output;
    auto written = [&](const Storage& storage) -> Ranges& {
        return storage.kind == StorageKind::arena ? arena : output;
    };
    for (const KernelSpec& kernel : kernels_) {
        check_restorable(*this, kernel);
        for (size_t i = 0; i < kernel.args.size(); i++) {
            const Storage& storage = storages_[kernel.args[i]];
            if (kernel.access[i] != Access::read || storage.kind == StorageKind::input ||
                storage.kind == StorageKind::weight)
                continue;
            if (!written(storage).contains(offset(storage), offset(storage) + storage.bytes))
                throw ModelError(name_ + ": kernel '" + kernel.name + "' reads '" + storage.name +
                                 "' before it was completely written");
        }
        for (size_t i = 0; i < kernel.args.size(); i++) {
            const Storage& storage = storages_[kernel.args[i]];
            if (writes(kernel.access[i]))
                written(storage).add(offset(storage), offset(storage) + storage.bytes);
        }
    }
    for (uint32_t index : outputs_) {
        const Storage& storage = storages_[index];
        if (!output.contains(offset(storage), offset(storage) + storage.bytes))
            throw ModelError(name_ + ": no kernel writes output '" + storage.name + "'");
    }
}

}  // namespace reef
