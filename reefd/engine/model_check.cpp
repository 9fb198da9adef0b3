// SPDX-License-Identifier: Apache-2.0
// The checks of a whole model: every kernel instance has a right answer, and nothing is read before it was written.
#include "model.hpp"
#include "ranges.hpp"
#include "restorable.hpp"

namespace reef {
namespace {

bool writes(Access access) { return access != Access::read; }

}  // namespace

std::vector<Unit> ModelSpec::check() const {
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
    std::vector<Unit> units = find_units(*this);
    Ranges arena, output;
    auto written = [&](const Storage& storage) -> Ranges& {
        return storage.kind == StorageKind::arena ? arena : output;
    };
    for (const KernelSpec& kernel : kernels_) {
        for (size_t i = 0; i < kernel.args.size(); i++) {
            const Storage& storage = storages_[kernel.args[i]];
            if (kernel.access[i] == Access::write || storage.kind == StorageKind::input ||
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
    return units;
}

}  // namespace reef
