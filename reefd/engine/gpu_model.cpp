// SPDX-License-Identifier: Apache-2.0
#include "gpu_model.hpp"

#include <algorithm>

namespace reef {
namespace {

constexpr uint32_t kMaxThreads = 1024;
constexpr uint32_t kMaxSharedBytes = 228 << 10;
constexpr uint32_t kMaxGpuBlocks = 1u << 30;
constexpr uint32_t kPlainShared = 48 << 10;  // what every kernel may have without asking

size_t aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

// Bytes that a launch may touch behind an argument's memory.
uint64_t room(const ModelSpec& spec, const GpuProgram& program, const GpuArgument& argument) {
    switch (argument.memory) {
    case GpuMemory::none:
        return 0;
    case GpuMemory::constant:
        return program.constants.size();
    case GpuMemory::workspace:
        return program.workspace_bytes;
    case GpuMemory::binding:
        return 8;
    case GpuMemory::outputs:
        return spec.output_bytes();
    case GpuMemory::storage:
        break;
    }
    if (argument.storage >= spec.storages().size())
        return 0;
    const Storage& storage = spec.storages()[argument.storage];
    return storage.base >= 0 ? 0 : storage.kind == StorageKind::arena ? spec.arena_bytes() : storage.bytes;
}

}  // namespace

void GpuModel::check(const ModelSpec& spec, const GpuProgram& program) const {
    if (program.launches.empty() || program.launches.size() > kMaxKernels)
        throw ModelError(spec.name() + ": a program of " + std::to_string(program.launches.size()) + " launches");
    for (const GpuLaunch& launch : program.launches) {
        const std::string where = spec.name() + ": launch '" + launch.name + "' (" + launch.entry + ")";
        if (launch.module >= program.modules.size() || launch.blocks == 0 || launch.blocks > kMaxGpuBlocks ||
            launch.threads == 0 || launch.threads > kMaxThreads || launch.shared_bytes > kMaxSharedBytes ||
            launch.units == 0 || launch.blocks % launch.units != 0)
            throw ModelError(where + ": " + std::to_string(launch.blocks) + " blocks of " +
                             std::to_string(launch.threads) + " threads, " + std::to_string(launch.units) + " units, " +
                             std::to_string(launch.shared_bytes) + " bytes of shared memory");
        for (const GpuArgument& argument : launch.arguments) {
            const uint64_t end = room(spec, program, argument);
            if (argument.offset > end || argument.bytes > end - argument.offset)
                throw ModelError(where + ": an argument of " + std::to_string(argument.bytes) + " bytes at " +
                                 std::to_string(argument.offset) + " does not lie within the " + std::to_string(end) +
                                 " bytes of its memory");
        }
    }
}

GpuModel::GpuModel(std::shared_ptr<const Driver> driver, const ModelSpec& spec)
    : DeviceModel(spec), driver_(std::move(driver)) {
    const GpuProgram* program = spec.program();
    if (!program)
        throw ModelError(spec.name() + ": the resource holds no code for this device");
    if (const std::vector<Unit> units = spec.check(); !units.empty())
        throw ModelError(spec.name() + ": kernel '" + spec.kernels()[units[0].kernel].name +
                         "' updates memory in place, so it would have to run as a unit; this device has none");
    check(spec, *program);
    workspace_bytes = program->workspace_bytes;
    facts_.kernels.clear();
    for (const GpuLaunch& launch : program->launches) {
        facts_.kernels.push_back(launch.name);
        facts_.blocks.push_back(launch.blocks);
        kernels.push_back({nullptr, nullptr, launch.blocks, launch.threads, launch.shared_bytes, record_bytes});
        record_bytes += launch.units * sizeof(uint32_t);
        arguments.push_back(launch.arguments);
        for (const GpuArgument& argument : launch.arguments)
            writes_outputs |= argument.memory == GpuMemory::binding;
    }
    for (const Storage& storage : spec.storages()) {
        kinds.push_back(storage.kind);
        slot_offsets.push_back(storage.kind == StorageKind::arena ? 0 : storage.offset);
    }
    try {
        load_code(*program);
        load_constants(spec, *program);
    } catch (...) {
        for (DriverModule* module : modules_)
            driver_->unload_module(module);
        throw;
    }
}

GpuModel::~GpuModel() {
    for (DriverModule* module : modules_)
        driver_->unload_module(module);
}

void GpuModel::load_code(const GpuProgram& program) {
    for (const std::string& code : program.modules) {
        DriverModule* module = nullptr;
        driver_->check(driver_->load_module(&module, code.data()), "loading code",
                       facts_.name + ", made for " + program.target);
        modules_.push_back(module);
    }
    auto find = [&](uint32_t module, const std::string& name, uint32_t shared_bytes) {
        DriverFunction* function = nullptr;
        driver_->check(driver_->function(&function, modules_[module], name.c_str()), "finding a kernel",
                       facts_.name + ": " + name);
        if (driver_->allow_shared && shared_bytes > kPlainShared)
            driver_->check(driver_->allow_shared(function, shared_bytes), "asking for shared memory",
                           facts_.name + ": " + name + ": " + std::to_string(shared_bytes) + " bytes");
        return function;
    };
    for (size_t i = 0; i < kernels.size(); i++) {
        const GpuLaunch& launch = program.launches[i];
        kernels[i].plain = find(launch.module, launch.entry, launch.shared_bytes);
        kernels[i].preemptible = find(launch.module, launch.entry + "_p", launch.shared_bytes);
    }
    window_begin = find(0, "reef_window_begin", 0);
    window_end = find(0, "reef_window_end", 0);
}

void GpuModel::load_constants(const ModelSpec& spec, const GpuProgram& program) {
    size_t end = aligned(program.constants.size());
    weight_offsets.assign(spec.storages().size(), SIZE_MAX);
    for (const auto& list : arguments) {
        for (const GpuArgument& argument : list) {
            if (argument.memory == GpuMemory::storage && kinds[argument.storage] == StorageKind::weight &&
                weight_offsets[argument.storage] == SIZE_MAX) {
                weight_offsets[argument.storage] = end;
                end += aligned(spec.storages()[argument.storage].bytes);
            }
        }
    }
    constants = DeviceMemory(driver_, end, facts_.name + ": its weights");
    facts_.weight_bytes = end;
    auto upload = [&](size_t offset, const std::byte* bytes, size_t count) {
        if (count != 0)
            driver_->check(driver_->upload(constants.at(offset), bytes, count), "copying weights", facts_.name);
    };
    upload(0, program.constants.data(), program.constants.size());
    for (size_t i = 0; i < weight_offsets.size(); i++)
        if (weight_offsets[i] != SIZE_MAX)
            upload(weight_offsets[i], spec.storages()[i].data.get(), spec.storages()[i].bytes);
}

}  // namespace reef
