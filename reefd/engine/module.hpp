// SPDX-License-Identifier: Apache-2.0
// The parts of the Python module `reefd._engine`; each binds the classes of one room.
#pragma once
#include <nanobind/nanobind.h>

namespace reef {

void bind_model(nanobind::module_& module);   // ModelSpec, ModelError: module_model.cpp
void bind_device(nanobind::module_& module);  // CpuDevice, run_model, instruction_sets: module_device.cpp
void bind_gpu(nanobind::module_& module);     // GpuProgram, GpuDevice: module_gpu.cpp
void bind_engine(nanobind::module_& module);  // Engine, Model, TaskSpec, Event, EngineError: module_engine.cpp

struct LocalDevice;
void bind_vacate(nanobind::module_& module);  // vacate: module_vacate.cpp
// Windows, epochs and marks by hand, for the conformance suite: module_launching.cpp
void bind_launching(nanobind::module_& module, nanobind::class_<LocalDevice>& local);

}  // namespace reef
