// SPDX-License-Identifier: Apache-2.0
// The device contract by hand, from Python: what the conformance suite drives every device with.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <poll.h>

#include <ctime>

#include "buffers.hpp"
#include "local_device.hpp"
#include "module.hpp"

namespace nb = nanobind;

namespace reef {
namespace {

// A request: its context and its tensors, which the device may reach (page-locked) or not.
struct LocalRequest {
    LocalRequest(LocalDevice& local, std::shared_ptr<DeviceModel> of, nb::sequence inputs, nb::sequence outputs,
                 bool registered)
        : device(local.device), model(std::move(of)), areas(model->facts(), inputs, outputs),
          context(device.make_context(model, ContextUse::either)) {
        binding = {areas.input_area.get(), areas.output_area.get()};
        std::string refused;
        if (registered && device.reach(binding.inputs, model->facts().input_bytes, refused)) {
            binding.device_reaches = device.reach(binding.outputs, model->facts().output_bytes, refused);
            if (!binding.device_reaches)
                device.forget(binding.inputs);
        }
    }
    ~LocalRequest() {
        if (binding.device_reaches) {
            device.forget(binding.inputs);
            device.forget(binding.outputs);
        }
    }
    LocalRequest(const LocalRequest&) = delete;
    LocalRequest& operator=(const LocalRequest&) = delete;

    Device& device;
    const std::shared_ptr<DeviceModel> model;
    const Areas areas;
    const std::unique_ptr<Context> context;
    Binding binding{};
};

uint32_t launch(LocalDevice& self, QueueId queue, LocalRequest& request, uint32_t first, uint32_t last, uint32_t epoch,
                bool preemptible, bool finish_blocks = false, uint32_t split = kNoSplit) {
    if (queue >= self.marks.size() || last > request.model->kernels() || first > last)
        throw nb::value_error("no such queue, or no such kernels");
    const DeviceInfo& info = self.device.info();
    if (split != kNoSplit && (info.split_granule == 0 || split % info.split_granule != 0 || split > info.split_most))
        throw nb::value_error("the device has no such split");
    const uint32_t retired = self.device.retired(queue);
    if (static_cast<int32_t>(retired - self.marks[queue]) > 0)
        self.marks[queue] = retired;  // the runner launched meanwhile
    if (self.marks[queue] - retired >= self.device.info().queue_depth)
        throw nb::value_error("the queue is full");
    const uint32_t mark = ++self.marks[queue];
    self.device.launch(
        queue, {request.context.get(), request.binding, first, last, epoch, preemptible, mark, finish_blocks, split});
    return mark;
}

bool wait(LocalDevice& self, QueueId queue, uint32_t mark, double seconds) {
    nb::gil_scoped_release released;
    const uint64_t limit = self.device.now_ns() + static_cast<uint64_t>(seconds * 1e9);
    while (static_cast<int32_t>(self.device.retired(queue) - mark) < 0) {
        if (self.device.now_ns() > limit || self.device.fault())
            return false;
        if (!self.device.arm())
            continue;
        if (pollfd event{self.device.event_fd(), POLLIN, 0}; event.fd >= 0) {
            poll(&event, 1, 100);
        } else {
            const timespec moment{0, 20'000};
            nanosleep(&moment, nullptr);
        }
    }
    return true;
}

// Runs a request again and again, each from its launch to its retirement, spinning: nanoseconds until launch() returned,
// and until the retirement was seen.
std::pair<std::vector<uint64_t>, std::vector<uint64_t>> repeat(LocalDevice& self, QueueId queue, LocalRequest& request,
                                                               uint32_t rounds, uint32_t epoch, bool preemptible,
                                                               uint32_t split) {
    nb::gil_scoped_release released;
    std::vector<uint64_t> launching, whole;
    for (uint32_t round = 0; round < rounds; round++) {
        self.device.clear_record(*request.context);
        const uint64_t start = self.device.now_ns();
        const uint32_t mark =
            launch(self, queue, request, 0, request.model->kernels(), epoch, preemptible, false, split);
        launching.push_back(self.device.now_ns() - start);
        while (self.device.retired(queue) != mark && !(self.device.now_ns() - start > 1'000'000'000)) {
        }
        whole.push_back(self.device.now_ns() - start);
    }
    return {launching, whole};
}

// Writes an epoch and spins until `mark` has retired: nanoseconds until the write returned, and until then.
std::pair<uint64_t, uint64_t> vacate(LocalDevice& self, QueueId queue, uint32_t epoch, uint32_t mark) {
    nb::gil_scoped_release released;
    const uint64_t start = self.device.now_ns();
    self.device.write_epoch(queue, epoch);
    const uint64_t written = self.device.now_ns() - start;
    while (self.device.retired(queue) != mark && !(self.device.now_ns() - start > 1'000'000'000)) {
    }
    return {written, self.device.now_ns() - start};
}

}  // namespace

void bind_launching(nb::module_& module, nb::class_<LocalDevice>& local) {
    nb::class_<LocalRequest>(module, "LocalRequest")
        .def(nb::init<LocalDevice&, std::shared_ptr<DeviceModel>, nb::sequence, nb::sequence, bool>(),
             nb::keep_alive<1, 2>(), nb::arg("device"), nb::arg("model"), nb::arg("inputs"), nb::arg("outputs"),
             nb::kw_only(), nb::arg("registered") = true)
        .def_prop_ro("registered", [](const LocalRequest& self) { return self.binding.device_reaches; })
        .def_prop_ro("kernels_done", [](const LocalRequest& self) { return self.device.kernels_done(*self.context); })
        .def("fetch", [](LocalRequest& self) { return self.device.fetch(*self.context, self.binding); })
        .def("deliver", [](LocalRequest& self) { return self.device.deliver(*self.context); })
        .def("drop", [](LocalRequest& self) { return self.device.drop(*self.context); })
        .def("clear", [](LocalRequest& self) { self.device.clear_record(*self.context); })
        .def("copy_out", [](const LocalRequest& self) { self.areas.copy_out(); });
    local
        .def("launch", launch, nb::arg("queue"), nb::arg("request"), nb::arg("first"), nb::arg("last"),
             nb::arg("epoch"), nb::arg("preemptible"), nb::arg("finish_blocks") = false, nb::arg("split") = kNoSplit)
        .def(
            "write_epoch",
            [](LocalDevice& self, QueueId queue, uint32_t epoch) { self.device.write_epoch(queue, epoch); },
            nb::arg("queue"), nb::arg("epoch"))
        .def(
            "write_epochs",
            [](LocalDevice& self, const std::vector<std::pair<QueueId, uint32_t>>& epochs) {
                std::vector<QueueEpoch> all;
                for (const auto& [queue, epoch] : epochs)
                    all.push_back({queue, epoch});
                self.device.write_epochs(all);
            },
            nb::arg("epochs"))
        .def(
            "retired", [](const LocalDevice& self, QueueId queue) { return self.device.retired(queue); },
            nb::arg("queue"))
        .def(
            "poll", [](LocalDevice& self, bool hold) { self.device.poll(hold); }, nb::arg("hold") = false)
        .def_prop_ro("copying", [](const LocalDevice& self) { return self.device.copying(); })
        .def("repeat", repeat, nb::arg("queue"), nb::arg("request"), nb::arg("rounds"), nb::arg("epoch") = 0,
             nb::arg("preemptible") = false, nb::arg("split") = kNoSplit)
        .def("vacate", vacate, nb::arg("queue"), nb::arg("epoch"), nb::arg("mark"))
        .def("wait", wait, nb::arg("queue"), nb::arg("mark"), nb::arg("seconds") = 60.0)
        .def_prop_ro("fault", [](LocalDevice& self) { return self.device.fault(); });
}

}  // namespace reef
