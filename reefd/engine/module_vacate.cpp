// SPDX-License-Identifier: Apache-2.0
// Python's vacate(): how long best-effort blocks take to leave a CPU device; notice(): bare threads in their place.
#include <nanobind/nanobind.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "buffers.hpp"
#include "cpu_notice.hpp"
#include "cpu_vacate.hpp"
#include "local_device.hpp"
#include "module.hpp"

namespace nb = nanobind;

namespace reef {
namespace {

constexpr std::array<std::pair<const char*, Leaving>, 5> kLeaving{{{"reef", Leaving::at_check_points},
                                                                   {"reset", Leaving::at_check_points},
                                                                   {"wait", Leaving::at_block_end},
                                                                   {"streams", Leaving::as_it_comes},
                                                                   {"sequential", Leaving::at_request_end}}};

nb::dict vacate(LocalDevice& self, const std::shared_ptr<DeviceModel>& best_effort, nb::sequence inputs,
                nb::sequence outputs, const std::shared_ptr<DeviceModel>& real_time, nb::sequence real_time_inputs,
                nb::sequence real_time_outputs, const std::string& policy, uint32_t rounds, uint64_t within_ns,
                uint64_t seed) {
    const auto* leaving = std::find_if(kLeaving.begin(), kLeaving.end(), [&](auto& it) { return policy == it.first; });
    if (leaving == kLeaving.end())
        throw nb::value_error(("no policy " + policy).c_str());
    auto* device = dynamic_cast<CpuDevice*>(&self.device);
    if (!device)
        throw nb::type_error("only a CpuDevice says when its workers leave");
    const Areas areas(best_effort->facts(), inputs, outputs);
    const Areas real_time_areas(real_time->facts(), real_time_inputs, real_time_outputs);
    std::vector<VacateSample> samples(rounds);
    {
        nb::gil_scoped_release released;
        VacateProbe probe(*device, {best_effort, {areas.input_area.get(), areas.output_area.get()}},
                          {real_time, {real_time_areas.input_area.get(), real_time_areas.output_area.get()}});
        probe.run(samples, {.leaving = leaving->second, .within_ns = within_ns, .seed = seed});
    }
    nb::list latency, own, timer, redone;
    for (const VacateSample& sample : samples) {
        latency.append(sample.latency_ns);
        own.append(sample.own_ns);
        timer.append(sample.timer_ns);
        redone.append(sample.redone);
    }
    nb::dict dict;
    dict["latency_ns"] = latency;
    dict["own_ns"] = own;
    dict["timer_ns"] = timer;
    dict["redone"] = redone;
    return dict;
}

nb::dict notice(uint32_t threads, uint32_t rounds, uint64_t within_ns, uint64_t memory, uint64_t seed) {
    std::vector<NoticeSample> samples(rounds);
    {
        nb::gil_scoped_release released;
        measure_notice(samples, {.threads = threads, .memory = memory, .within_ns = within_ns, .seed = seed});
    }
    nb::list latency, timer;
    for (const NoticeSample& sample : samples) {
        latency.append(sample.latency_ns);
        timer.append(sample.timer_ns);
    }
    nb::dict dict;
    dict["latency_ns"] = latency;
    dict["timer_ns"] = timer;
    return dict;
}

}  // namespace

void bind_vacate(nb::module_& module) {
    module.def("notice", notice, nb::kw_only(), nb::arg("threads"), nb::arg("rounds"), nb::arg("within_ns"),
               nb::arg("memory") = 0, nb::arg("seed") = 1);
    module.def("vacate", vacate, nb::arg("device"), nb::arg("best_effort"), nb::arg("inputs"), nb::arg("outputs"),
               nb::arg("real_time"), nb::arg("real_time_inputs"), nb::arg("real_time_outputs"), nb::kw_only(),
               nb::arg("policy"), nb::arg("rounds"), nb::arg("within_ns"), nb::arg("seed") = 1);
}

}  // namespace reef
