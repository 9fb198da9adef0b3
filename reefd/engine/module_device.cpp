// SPDX-License-Identifier: Apache-2.0
// Python's CpuDevice and run_model: a device without an engine.
#include <nanobind/nanobind.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "buffers.hpp"
#include "cpu_device.hpp"
#include "cpu_profile.hpp"
#include "local_device.hpp"
#include "module.hpp"

namespace nb = nanobind;

namespace reef {
namespace {

struct LocalCpuDevice : LocalDevice {
    explicit LocalCpuDevice(const CpuOptions& options) : LocalDevice(std::make_unique<CpuDevice>(options)) {}
};

void make_device(LocalCpuDevice* self, uint32_t workers, const std::string& isa, bool realtime, uint64_t spin_ns,
                 uint32_t shield_after, bool exclusive) {
    new (self) LocalCpuDevice({.isa = choose_isa(isa),
                               .workers = workers,
                               .realtime = realtime,
                               .exclusive = exclusive,
                               .spin_ns = spin_ns,
                               .shield_after = shield_after});
}

nb::dict info(const LocalDevice& self) {
    const DeviceInfo& info = self.device.info();
    nb::dict dict;
    dict["name"] = info.name;
    dict["detail"] = info.detail;
    dict["compute_units"] = info.compute_units;
    dict["queues"] = info.queues;
    dict["target"] = info.target;
    dict["can_reset"] = info.can_reset;
    dict["memory_total"] = info.memory_total;
    dict["memory_free"] = info.memory_free;
    dict["priorities"] = info.priorities;
    dict["queue_depth"] = info.queue_depth;
    dict["split_granule"] = info.split_granule;
    dict["split_most"] = info.split_most;
    dict["realtime"] = info.real_time;
    return dict;
}

std::shared_ptr<DeviceModel> load(LocalDevice& self, const ModelSpec& spec) {
    nb::gil_scoped_release released;
    return self.device.load(spec);
}

RunReport run_rounds(LocalDevice& self, const std::shared_ptr<DeviceModel>& model, const Areas& areas,
                     RunOptions options, std::vector<uint64_t>& times) {
    nb::gil_scoped_release released;
    const std::unique_ptr<Context> context = self.device.make_context(model);
    RunReport total{};
    for (uint64_t& time : times) {
        const RunReport report =
            self.runner.run(*context, model->kernels(), {areas.input_area.get(), areas.output_area.get()}, options);
        time = report.end_ns - report.start_ns;
        options.seed++;
        total.launches += report.launches;
        total.preempted += report.preempted;
        total.vacated_ns_worst = std::max(total.vacated_ns_worst, report.vacated_ns_worst);
    }
    return total;
}

nb::dict run(LocalDevice& self, const std::shared_ptr<DeviceModel>& model, nb::sequence inputs, nb::sequence outputs,
             bool preemptible, const std::vector<uint32_t>& interrupt_at, uint32_t interrupts, uint64_t within_ns,
             uint64_t seed, uint32_t rounds) {
    if (!std::is_sorted(interrupt_at.begin(), interrupt_at.end()))
        throw nb::value_error("interrupt_at is not in ascending order");
    const Areas areas(model->facts(), inputs, outputs);
    std::vector<uint64_t> times(rounds);
    const RunReport report = run_rounds(self, model, areas,
                                        {.preemptible = preemptible,
                                         .interrupt_at = interrupt_at,
                                         .interrupts = interrupts,
                                         .within_ns = within_ns,
                                         .seed = seed},
                                        times);
    areas.copy_out();
    nb::dict dict;
    dict["execute_ns"] = times.empty() ? 0 : times.back();
    dict["each_ns"] = times;
    dict["launches"] = report.launches;
    dict["preempted"] = report.preempted;
    dict["vacated_ns"] = report.vacated_ns_worst;
    return dict;
}

nb::list statistics(const LocalDevice& self) {
    std::vector<WorkerStatistics> units(self.device.info().compute_units);
    units.resize(self.device.statistics(units.data(), static_cast<uint32_t>(units.size())));
    nb::list list;
    for (const WorkerStatistics& unit : units) {
        nb::dict dict;
        dict["real_time_ns"] = unit.real_time_ns;
        dict["best_effort_ns"] = unit.best_effort_ns;
        dict["blocks"] = unit.blocks;
        dict["abandoned"] = unit.abandoned;
        list.append(dict);
    }
    return list;
}

nb::list kernel_times_list(LocalCpuDevice& self, const std::shared_ptr<DeviceModel>& model, nb::sequence inputs,
                           nb::sequence outputs, uint32_t rounds) {
    const Areas areas(model->facts(), inputs, outputs);
    std::vector<uint64_t> times;
    {
        nb::gil_scoped_release released;
        times = kernel_times(static_cast<CpuDevice&>(self.device), model,
                             {areas.input_area.get(), areas.output_area.get()}, rounds);
    }
    areas.copy_out();
    nb::list list;
    for (size_t first = 0; first < times.size(); first += model->kernels()) {
        nb::list round;
        for (size_t kernel = 0; kernel < model->kernels(); kernel++)
            round.append(times[first + kernel]);
        list.append(round);
    }
    return list;
}

nb::list block_times_list(const LocalCpuDevice& self, const std::shared_ptr<DeviceModel>& model, nb::sequence inputs,
                          nb::sequence outputs, uint32_t rounds) {
    const Areas areas(model->facts(), inputs, outputs);
    std::vector<BlockTimes> times;
    {
        nb::gil_scoped_release released;
        times = block_times(model, {areas.input_area.get(), areas.output_area.get()}, self.device.info().compute_units,
                            rounds);
    }
    areas.copy_out();
    nb::list list;
    for (const BlockTimes& kernel : times)
        list.append(nb::make_tuple(kernel.block_ns, kernel.check_ns, kernel.copy_ns));
    return list;
}

void run_model(const ModelSpec& spec, nb::sequence inputs, nb::sequence outputs, uint32_t workers,
               const std::string& isa) {
    LocalCpuDevice device({.isa = choose_isa(isa), .workers = workers});
    const std::shared_ptr<DeviceModel> model = load(device, spec);
    const Areas areas(model->facts(), inputs, outputs);
    std::vector<uint64_t> once(1);
    run_rounds(device, model, areas, {}, once);
    areas.copy_out();
}

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const CpuIsa& isa : available_isas())
        names.push_back(isa.name);
    return names;
}

}  // namespace

void bind_device(nb::module_& module) {
    module.def("instruction_sets", instruction_sets);
    module.def("run_model", run_model, nb::arg("spec"), nb::arg("inputs"), nb::arg("outputs"), nb::kw_only(),
               nb::arg("workers") = 0, nb::arg("isa") = "");
    nb::class_<LocalDevice> local(module, "LocalDevice");
    local.def_prop_ro("info", info)
        .def("load", load, nb::arg("spec"))
        .def("run", run, nb::arg("model"), nb::arg("inputs"), nb::arg("outputs"), nb::kw_only(),
             nb::arg("preemptible") = false, nb::arg("interrupt_at") = std::vector<uint32_t>{},
             nb::arg("interrupts") = 0, nb::arg("within_ns") = 100'000, nb::arg("seed") = 1, nb::arg("rounds") = 1)
        .def("statistics", statistics);
    bind_launching(module, local);
    nb::class_<LocalCpuDevice, LocalDevice>(module, "CpuDevice")
        .def("__init__", make_device, nb::kw_only(), nb::arg("workers") = 0, nb::arg("isa") = "",
             nb::arg("realtime") = false, nb::arg("spin_ns") = 20'000, nb::arg("shield_after") = 8,
             nb::arg("exclusive") = true)
        .def("kernel_times", kernel_times_list, nb::arg("model"), nb::arg("inputs"), nb::arg("outputs"), nb::kw_only(),
             nb::arg("rounds"))
        .def("block_times", block_times_list, nb::arg("model"), nb::arg("inputs"), nb::arg("outputs"), nb::kw_only(),
             nb::arg("rounds"));
    bind_vacate(module);
}

}  // namespace reef
