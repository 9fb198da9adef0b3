// SPDX-License-Identifier: Apache-2.0
// A program on a GPU: its code, its constants, and where each argument of each launch points.
#pragma once
#include <vector>

#include "gpu_memory.hpp"
#include "gpu_program.hpp"
#include "model.hpp"

namespace reef {

// Kernel arguments as the kernels declare them (kernels/gpu/portable.cuh, gate.cuh).
struct GpuArgs {
    const void* pointers[8];
};
struct GpuPlace {
    const void* queue_epoch;
    void* window;
    void* left;
    void* progress;
    uint32_t kernel;
};

struct GpuKernel {
    DriverFunction* plain = nullptr;
    DriverFunction* preemptible = nullptr;
    uint32_t blocks = 0;
    uint32_t threads = 0;
    uint32_t shared_bytes = 0;
    uint64_t left_offset = 0;  // bytes, in a context's record
};

class GpuModel final : public DeviceModel {
public:
    // Loads on the calling thread, where the device is current. ModelError for a program that does not fit the model;
    // DriverError, with sizes, for what the driver refuses.
    GpuModel(std::shared_ptr<const Driver> driver, const ModelSpec& spec);
    ~GpuModel() override;

    std::vector<GpuKernel> kernels;
    std::vector<std::array<GpuArgument, 8>> arguments;  // storages resolved: memory is one of Place's below
    DriverFunction* window_begin = nullptr;
    DriverFunction* window_end = nullptr;
    uint64_t record_bytes = 0;  // a word for each unit of restoration
    uint64_t workspace_bytes = 0;
    bool writes_outputs = false;  // a launch brings them to the client's memory; else the copy engine does
    DeviceMemory constants;
    std::vector<size_t> weight_offsets;  // of storages in `constants`, SIZE_MAX where nothing points at one
    std::vector<uint64_t> slot_offsets;  // of input and output storages in their areas
    std::vector<StorageKind> kinds;

private:
    void check(const ModelSpec& spec, const GpuProgram& program) const;
    void load_code(const GpuProgram& program);
    void load_constants(const ModelSpec& spec, const GpuProgram& program);

    std::shared_ptr<const Driver> driver_;
    std::vector<DriverModule*> modules_;
};

}  // namespace reef
