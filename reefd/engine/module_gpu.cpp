// SPDX-License-Identifier: Apache-2.0
// Python's GpuProgram and GpuDevice.
#include <nanobind/nanobind.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "buffers.hpp"
#include "failure.hpp"
#include "gpu_device.hpp"
#include "local_device.hpp"
#include "module.hpp"

namespace nb = nanobind;

namespace reef {
namespace {

struct LocalGpuDevice : LocalDevice {
    using LocalDevice::LocalDevice;
};

void make_device(LocalGpuDevice* self, const std::string& kind, int ordinal, uint32_t queues, uint32_t shield_after) {
    if (kind != "cuda" && kind != "hip")
        throw nb::value_error("a GPU device is cuda or hip");
    try {
        new (self) LocalGpuDevice(
            make_gpu_device(kind, {.ordinal = ordinal, .best_effort_queues = queues, .shield_after = shield_after}));
    } catch (const DriverError& error) {
        throw EngineFailure(-ENODEV, error.what());
    }
}

GpuMemory memory(const std::string& name) {
    static constexpr std::pair<const char*, GpuMemory> names[] = {
        {"none", GpuMemory::none},           {"storage", GpuMemory::storage}, {"constant", GpuMemory::constant},
        {"workspace", GpuMemory::workspace}, {"binding", GpuMemory::binding}, {"outputs", GpuMemory::outputs}};
    for (const auto& [word, value] : names)
        if (name == word)
            return value;
    throw ModelError("unknown memory '" + name + "'");
}

using Argument = std::tuple<std::string, uint32_t, uint64_t, uint64_t>;

void add_launch(GpuProgram& self, std::string name, std::string entry, uint32_t module, uint32_t blocks,
                uint32_t threads, uint32_t shared_bytes, uint32_t units, const std::vector<Argument>& arguments) {
    GpuLaunch launch{std::move(name), std::move(entry), module, blocks, threads, shared_bytes, units, {}};
    if (arguments.size() > launch.arguments.size())
        throw ModelError("launch '" + launch.name + "' has " + std::to_string(arguments.size()) + " arguments");
    for (size_t i = 0; i < arguments.size(); i++) {
        const auto& [where, storage, offset, bytes] = arguments[i];
        launch.arguments[i] = {memory(where), storage, offset, bytes};
    }
    self.launches.push_back(std::move(launch));
}

void make_program(GpuProgram* self, std::string target, const std::vector<nb::bytes>& modules, nb::object constants,
                  uint64_t workspace_bytes) {
    new (self) GpuProgram{};
    self->target = std::move(target);
    for (const nb::bytes& code : modules)
        self->modules.emplace_back(code.c_str(), code.size());
    const BufferView view(constants, false, "constants");
    self->constants.assign(view.bytes().begin(), view.bytes().end());
    self->workspace_bytes = workspace_bytes;
}

}  // namespace

void bind_gpu(nb::module_& module) {
    nb::class_<GpuProgram>(module, "GpuProgram")
        .def("__init__", make_program, nb::arg("target"), nb::arg("modules"), nb::arg("constants"),
             nb::arg("workspace_bytes"))
        .def("add_launch", add_launch, nb::arg("name"), nb::arg("entry"), nb::arg("module"), nb::arg("blocks"),
             nb::arg("threads"), nb::arg("shared_bytes"), nb::arg("units"), nb::arg("arguments"));
    nb::class_<LocalGpuDevice, LocalDevice>(module, "GpuDevice")
        .def("__init__", make_device, nb::arg("kind"), nb::kw_only(), nb::arg("ordinal") = 0, nb::arg("queues") = 4,
             nb::arg("shield_after") = 8);
}

}  // namespace reef
