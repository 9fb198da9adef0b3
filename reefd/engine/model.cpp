// SPDX-License-Identifier: Apache-2.0
// ModelSpec: every number of a resource is checked here as it comes in.
#include "model.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace reef {
namespace {

struct DTypeEntry {
    reef_dtype dtype;
    const char* name;
    size_t bytes;
};
constexpr DTypeEntry kDTypes[] = {
    {REEF_FLOAT32, "float32", 4}, {REEF_UINT8, "uint8", 1},     {REEF_INT8, "int8", 1},     {REEF_UINT16, "uint16", 2},
    {REEF_INT16, "int16", 2},     {REEF_INT32, "int32", 4},     {REEF_INT64, "int64", 8},   {REEF_BOOL, "bool", 1},
    {REEF_FLOAT16, "float16", 2}, {REEF_FLOAT64, "float64", 8}, {REEF_UINT32, "uint32", 4}, {REEF_UINT64, "uint64", 8},
};

const DTypeEntry* find_dtype(reef_dtype dtype) {
    for (const DTypeEntry& entry : kDTypes)
        if (entry.dtype == dtype)
            return &entry;
    return nullptr;
}

uint64_t tensor_bytes(const std::string& where, reef_dtype dtype, const std::vector<int64_t>& shape) {
    uint64_t bytes = element_bytes(dtype);
    if (bytes == 0)
        throw ModelError(where + ": unknown element type " + std::to_string(dtype));
    if (shape.size() > REEF_MAX_RANK)
        throw ModelError(where + ": rank " + std::to_string(shape.size()) + " is above " +
                         std::to_string(REEF_MAX_RANK));
    for (int64_t dimension : shape) {
        if (dimension < 1)
            throw ModelError(where + ": dimension " + std::to_string(dimension) + " is not positive");
        if (static_cast<uint64_t>(dimension) > kMaxBytes / bytes)
            throw ModelError(where + ": larger than " + std::to_string(kMaxBytes) + " bytes");
        bytes *= static_cast<uint64_t>(dimension);
    }
    return bytes;
}

std::shared_ptr<const std::byte> copy_aligned(std::span<const std::byte> data) {
    size_t room = (data.size() + kAlignment - 1) / kAlignment * kAlignment;
    std::shared_ptr<std::byte> copy(static_cast<std::byte*>(std::aligned_alloc(kAlignment, room)), std::free);
    if (!copy)
        throw std::bad_alloc();
    std::memcpy(copy.get(), data.data(), data.size());
    return copy;
}

}  // namespace

size_t element_bytes(reef_dtype dtype) {
    const DTypeEntry* entry = find_dtype(dtype);
    return entry ? entry->bytes : 0;
}

const char* dtype_name(reef_dtype dtype) {
    const DTypeEntry* entry = find_dtype(dtype);
    return entry ? entry->name : "unknown";
}

reef_dtype dtype_from_name(std::string_view name) {
    for (const DTypeEntry& entry : kDTypes)
        if (name == entry.name)
            return entry.dtype;
    throw ModelError("unknown element type '" + std::string(name) + "'");
}

ModelSpec::ModelSpec(std::string name, uint64_t arena_bytes) : name_(std::move(name)), arena_bytes_(arena_bytes) {
    if (name_.empty() || name_.size() >= REEF_NAME_MAX)
        throw ModelError("model name '" + name_ + "' must have 1 to " + std::to_string(REEF_NAME_MAX - 1) +
                         " characters");
    if (arena_bytes > kMaxBytes)
        throw ModelError(name_ + ": arena of " + std::to_string(arena_bytes) + " bytes is above " +
                         std::to_string(kMaxBytes));
}

uint32_t ModelSpec::add_storage(std::string name, StorageKind kind, reef_dtype dtype, std::vector<int64_t> shape,
                                uint64_t offset, std::span<const std::byte> data, int64_t base) {
    const std::string where = name_ + ": storage '" + name + "'";
    Storage storage{std::move(name), kind, dtype, std::move(shape), 0, offset, nullptr, base};
    storage.bytes = tensor_bytes(where, dtype, storage.shape);
    auto within = [&](uint64_t room, const std::string& what) {
        if (storage.bytes > room || offset > room - storage.bytes)
            throw ModelError(where + ": bytes " + std::to_string(offset) + " + " + std::to_string(storage.bytes) +
                             " lie outside " + what + " of " + std::to_string(room));
    };
    if (base >= 0) {
        if (static_cast<uint64_t>(base) >= storages_.size())
            throw ModelError(where + ": its base is storage " + std::to_string(base) + " of " +
                             std::to_string(storages_.size()));
        const Storage& shown = storages_[static_cast<size_t>(base)];
        if (shown.base >= 0 || shown.kind != kind)
            throw ModelError(where + ": its base '" + shown.name + "' is itself a view or of another kind");
        if (!data.empty())
            throw ModelError(where + ": a view has no data of its own");
        if (offset % element_bytes(dtype) != 0)
            throw ModelError(where + ": offset " + std::to_string(offset) + " is not a multiple of the element size");
        within(shown.bytes, "'" + shown.name + "'");
        if (shown.data)
            storage.data = {shown.data, shown.data.get() + offset};
    } else if (kind == StorageKind::weight) {
        if (data.size() != storage.bytes)
            throw ModelError(where + ": has " + std::to_string(data.size()) + " bytes of data, its shape needs " +
                             std::to_string(storage.bytes));
        storage.data = copy_aligned(data);
    } else {
        if (!data.empty())
            throw ModelError(where + ": only weights have data");
        if (kind == StorageKind::arena)
            within(arena_bytes_, "the arena");
        else if (storage.name.empty() || storage.name.size() >= REEF_NAME_MAX)
            throw ModelError(where + ": the name must have 1 to " + std::to_string(REEF_NAME_MAX - 1) + " characters");
        if (offset % kAlignment != 0)
            throw ModelError(where + ": offset " + std::to_string(offset) + " is not a multiple of " +
                             std::to_string(kAlignment));
    }
    if (base < 0 && kind != StorageKind::arena && offset != 0)
        throw ModelError(where + ": only views and arena storages have an offset");
    storages_.push_back(std::move(storage));
    return static_cast<uint32_t>(storages_.size() - 1);
}

uint32_t ModelSpec::add_kernel(std::string name, std::string op, std::vector<uint32_t> args, std::vector<Access> access,
                               Attributes attributes) {
    const std::string where = name_ + ": kernel '" + name + "'";
    if (kernels_.size() >= kMaxKernels)
        throw ModelError(where + ": more than " + std::to_string(kMaxKernels) + " kernels");
    if (args.size() != access.size())
        throw ModelError(where + ": " + std::to_string(args.size()) + " arguments but " +
                         std::to_string(access.size()) + " directions");
    for (size_t i = 0; i < args.size(); i++) {
        if (args[i] >= storages_.size())
            throw ModelError(where + ": argument " + std::to_string(i) + " names storage " + std::to_string(args[i]) +
                             " of " + std::to_string(storages_.size()));
        const Storage& storage = storages_[args[i]];
        bool constant = storage.kind == StorageKind::input || storage.kind == StorageKind::weight;
        if (constant && access[i] != Access::read)
            throw ModelError(where + ": writes '" + storage.name + "', which is " +
                             (storage.kind == StorageKind::input ? "an input" : "a weight"));
    }
    kernels_.push_back({std::move(name), std::move(op), std::move(args), std::move(access), std::move(attributes)});
    return static_cast<uint32_t>(kernels_.size() - 1);
}

uint64_t ModelSpec::place(const std::vector<uint32_t>& storages, StorageKind kind) {
    const char* what = kind == StorageKind::input ? "input" : "output";
    std::vector<bool> seen(storages_.size());
    uint64_t end = 0;
    for (uint32_t index : storages) {
        if (index >= storages_.size() || storages_[index].kind != kind || storages_[index].base >= 0)
            throw ModelError(name_ + ": storage " + std::to_string(index) + " is no " + what + " of its own");
        Storage& storage = storages_[index];
        if (seen[index])
            throw ModelError(name_ + ": " + what + " '" + storage.name + "' is listed twice");
        seen[index] = true;
        storage.offset = end;
        end += (storage.bytes + REEF_PAGE - 1) / REEF_PAGE * REEF_PAGE;
        if (end > kMaxBytes)
            throw ModelError(name_ + ": the " + what + "s are larger than " + std::to_string(kMaxBytes) + " bytes");
    }
    for (size_t i = 0; i < storages_.size(); i++)
        if (storages_[i].kind == kind && storages_[i].base < 0 && !seen[i])
            throw ModelError(name_ + ": " + what + " '" + storages_[i].name + "' is not listed");
    return end;
}

void ModelSpec::set_inputs(std::vector<uint32_t> storages) {
    input_bytes_ = place(storages, StorageKind::input);
    inputs_ = std::move(storages);
}

void ModelSpec::set_outputs(std::vector<uint32_t> storages) {
    output_bytes_ = place(storages, StorageKind::output);
    outputs_ = std::move(storages);
}

DeviceModel::DeviceModel(const ModelSpec& spec) {
    auto tensors = [&](const std::vector<uint32_t>& indices) {
        std::vector<ModelTensor> list;
        for (uint32_t index : indices) {
            const Storage& storage = spec.storages()[index];
            list.push_back({storage.name, storage.dtype, storage.shape, storage.offset, storage.bytes});
        }
        return list;
    };
    facts_.name = spec.name();
    facts_.inputs = tensors(spec.inputs());
    facts_.outputs = tensors(spec.outputs());
    facts_.input_bytes = spec.input_bytes();
    facts_.output_bytes = spec.output_bytes();
    for (const KernelSpec& kernel : spec.kernels())
        facts_.kernels.push_back(kernel.name);
    facts_.weight_bytes = 0;
    facts_.arena_bytes = spec.arena_bytes();
    facts_.snapshot_bytes = 0;
}

}  // namespace reef
