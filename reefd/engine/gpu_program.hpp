// SPDX-License-Identifier: Apache-2.0
// A model as GPU kernels: code objects for one target and the launches in order. It comes with a resource (reefd.gpu
// makes it); its launches, not the kernels of model.json, are what a GPU device counts as the model's kernels.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace reef {

// Where an argument points. storage: the place of a tensor of model.json (input, output, arena or weight); constant: into
// the program's own constants (packed weights); workspace: bytes that only launches of one kernel use; binding: the
// word that says where the request's outputs go in the client's memory; outputs: the device's copy of all of them.
enum class GpuMemory : uint8_t { none, storage, constant, workspace, binding, outputs };

struct GpuArgument {
    GpuMemory memory = GpuMemory::none;
    uint32_t storage = 0;
    uint64_t offset = 0;  // bytes: in the arena, the storage, the constants, the workspace
    uint64_t bytes = 0;   // that the launch may touch from there; checked against what there is
};

struct GpuLaunch {
    std::string name;
    std::string entry;  // plain form; the preemptible one has _p behind it
    uint32_t module = 0;
    uint32_t blocks = 0;
    uint32_t threads = 0;
    uint32_t shared_bytes = 0;
    uint32_t units = 0;  // of restoration: blocks, or clusters of blocks
    std::array<GpuArgument, 8> arguments{};
};

struct GpuProgram {
    std::string target;  // sm_90a, gfx906, host
    std::vector<std::string> modules;
    std::vector<std::byte> constants;
    uint64_t workspace_bytes = 0;
    std::vector<GpuLaunch> launches;
};

}  // namespace reef
