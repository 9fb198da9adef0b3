// SPDX-License-Identifier: Apache-2.0
// Python's Engine, TaskSpec, Region, Event and EngineError. Every call that may block gives the GIL up first.
#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cerrno>
#include <memory>
#include <optional>

#include "buffers.hpp"
#include "engine.hpp"
#include "failure.hpp"
#include "memory_keeper.hpp"
#include "module.hpp"

namespace nb = nanobind;

namespace reef {
namespace {

template <class T>
T choose(const std::string& value, std::initializer_list<std::pair<const char*, T>> choices, const char* what) {
    std::string names;
    for (const auto& [name, choice] : choices) {
        if (value == name) {
            return choice;
        }
        names += names.empty() ? name : std::string(", ") + name;
    }
    throw EngineFailure(-EINVAL, std::string(what) + " '" + value + "' is unknown; there are: " + names);
}

void make_task_spec(TaskSpec* self, std::string name, const std::string& task_class, nb::sequence models,
                    uint32_t slots, uint64_t deadline_ns, int32_t priority, uint32_t weight, const std::string& queue,
                    bool crc, bool payload_crc, uint64_t signature, uint32_t contexts, bool preemptible,
                    std::vector<ModelProfile> profiles, const std::array<uint64_t, kLatencies>& bounds_ns,
                    double budget) {
    TaskSpec spec;
    spec.name = std::move(name);
    spec.real_time = choose<bool>(task_class, {{"rt", true}, {"be", false}}, "class");
    for (nb::handle item : models) {
        const auto pair = nb::cast<nb::tuple>(item);
        auto model = pair[1].is_none() ? nullptr : nb::cast<std::shared_ptr<DeviceModel>>(pair[1]);
        spec.models.emplace_back(nb::cast<std::string>(pair[0]), std::move(model));
    }
    spec.slots = slots;
    spec.deadline_ns = deadline_ns;
    spec.priority = priority;
    spec.weight = weight;
    spec.queue_policy = choose<uint32_t>(
        queue, {{"fail", REEF_QUEUE_FAIL}, {"block", REEF_QUEUE_BLOCK}, {"latest", REEF_QUEUE_LATEST}}, "queue");
    spec.crc = crc;
    spec.payload_crc = payload_crc;
    spec.signature = signature;
    spec.contexts = contexts;
    spec.preemptible = preemptible;
    spec.profiles = std::move(profiles);
    spec.bounds = {bounds_ns, static_cast<uint32_t>(budget * 1e6)};
    new (self) TaskSpec(std::move(spec));
}

nb::dict device_dict(const Engine& engine) {
    const DeviceInfo& info = engine.device_info();
    nb::dict dict;
    dict["kind"] = engine.device_kind();
    dict["name"] = info.name;
    dict["detail"] = info.detail;
    dict["compute_units"] = info.compute_units;
    dict["queues"] = info.queues;
    dict["split_granule"] = info.split_granule;
    dict["split_most"] = info.split_most;
    dict["target"] = info.target;
    dict["can_reset"] = info.can_reset;
    dict["may_spin"] = info.may_spin;
    dict["policy"] = engine.policy_name();
    dict["realtime"] = engine.realtime();
    return dict;
}

// Only buckets that are not empty: [(upper bound in nanoseconds, count)].
nb::dict histogram_dict(const Histogram& histogram) {
    nb::list buckets;
    uint64_t count = 0;
    for (uint32_t i = 0; i < Histogram::kBuckets; ++i) {
        if (const uint64_t n = histogram.count(i); n != 0) {
            buckets.append(nb::make_tuple(Histogram::upper_ns(i), n));
            count += n;
        }
    }
    nb::dict dict;
    dict["count"] = count;
    dict["sum_ns"] = histogram.sum_ns();
    dict["max_ns"] = histogram.max_ns();
    dict["buckets"] = buckets;
    return dict;
}

nb::dict task_dict(const TaskSnapshot& task) {
    const TaskCounters& counters = task.counters;
    nb::dict dict;
    dict["task"] = task.id;
    dict["name"] = task.name;
    dict["class"] = task.real_time ? "rt" : "be";
    dict["sessions"] = task.sessions;
    dict["accepted"] = counters.accepted;
    dict["completed"] = counters.completed;
    dict["failed"] = counters.failed;
    dict["late"] = counters.late;
    dict["expired"] = counters.expired;
    dict["cancelled"] = counters.cancelled;
    dict["damaged"] = counters.damaged;
    dict["replayed"] = counters.replayed;
    dict["preempted"] = counters.preempted;
    dict["abandoned_windows"] = counters.abandoned_windows;
    dict["shielded"] = counters.shielded;
    dict["behind_shielded"] = counters.behind_shielded;
    nb::dict broken;
    for (uint32_t i = 0; i < kLatencies; ++i) {
        broken[kLatencyNames[i]] = counters.broken[i];
    }
    dict["broken"] = broken;
    dict["queueing"] = histogram_dict(counters.queueing);
    dict["preemption"] = histogram_dict(counters.preemption);
    dict["execution"] = histogram_dict(counters.execution);
    dict["end_to_end"] = histogram_dict(counters.end_to_end);
    return dict;
}

nb::dict session_dict(const SessionSnapshot& session) {
    nb::dict dict;
    dict["session"] = session.id;
    dict["task"] = session.task;
    dict["verdict"] = session.verdict;
    dict["locked"] = session.locked;
    dict["accepted"] = session.stats.accepted;
    dict["completed"] = session.stats.completed;
    dict["failed"] = session.stats.failed;
    dict["late"] = session.stats.late;
    dict["preempted"] = session.stats.preempted;
    dict["queue_ns"] = session.stats.queue_ns;
    dict["execute_ns"] = session.stats.execute_ns;
    dict["damaged"] = session.stats.damaged;
    return dict;
}

nb::dict snapshot_dict(Engine& engine) {
    const Snapshot snapshot = [&] {
        nb::gil_scoped_release released;
        return engine.snapshot();
    }();
    nb::list tasks;
    for (const TaskSnapshot& task : snapshot.tasks) {
        tasks.append(task_dict(task));
    }
    nb::list sessions;
    for (const SessionSnapshot& session : snapshot.sessions) {
        sessions.append(session_dict(session));
    }
    nb::dict dict;
    dict["turns"] = snapshot.loop.turns;
    dict["sleeps"] = snapshot.loop.sleeps;
    dict["doorbells"] = snapshot.loop.doorbells;
    dict["most_taken"] = snapshot.loop.most_taken;
    dict["ladder"] = snapshot.loop.ladder;
    dict["ladder_name"] = step_name(static_cast<Step>(snapshot.loop.ladder));
    dict["ladder_down"] = snapshot.loop.ladder_down;
    dict["ladder_up"] = snapshot.loop.ladder_up;
    dict["allocations"] = snapshot.loop.allocations;
    dict["events_dropped"] = snapshot.events_dropped;
    dict["tasks"] = tasks;
    dict["sessions"] = sessions;
    return dict;
}

nb::dict run(Engine& engine, const std::shared_ptr<DeviceModel>& model, nb::sequence inputs, nb::sequence outputs,
             bool preemptible) {
    const Areas areas(model->facts(), inputs, outputs);
    uint64_t execute_ns;
    {
        nb::gil_scoped_release released;
        execute_ns = engine.run(model, {areas.input_area.get(), areas.output_area.get()}, preemptible);
    }
    areas.copy_out();
    nb::dict dict;
    dict["execute_ns"] = execute_ns;
    return dict;
}

nb::dict stop(Engine& engine, uint64_t grace_ns, bool keep_sessions) {
    const StopCounts counts = [&] {
        nb::gil_scoped_release released;
        return engine.stop(grace_ns, keep_sessions);
    }();
    nb::dict dict;
    dict["finished"] = counts.finished;
    dict["failed"] = counts.failed;
    dict["kept"] = counts.kept;
    return dict;
}

// (time_ns, what, queue, model, kernel, block); of launch and retire the last two are the window's kernels [first, last).
nb::list trace_list(Engine& engine) {
    static constexpr const char* names[] = {"launch", "block", "abandon", "retire", "expect", "fetch", "deliver"};
    nb::list list;
    for (const TraceRecord& record : engine.take_trace()) {
        list.append(nb::make_tuple(record.time_ns, names[static_cast<size_t>(record.what)], record.queue, record.model,
                                   record.kernel, record.block));
    }
    return list;
}

// nb::exception gives an exception no attributes; this one carries `code`.
void bind_error(nb::module_& module) {
    PyObject* type = PyErr_NewException("reefd._engine.EngineError", PyExc_Exception, nullptr);
    module.attr("EngineError") = nb::handle(type);
    nb::register_exception_translator(
        [](const std::exception_ptr& thrown, void* payload) {
            try {
                std::rethrow_exception(thrown);
            } catch (const EngineFailure& failure) {
                nb::handle type(static_cast<PyObject*>(payload));
                nb::object error = type(failure.what());
                error.attr("code") = failure.code;
                PyErr_SetObject(type.ptr(), error.ptr());
            }
        },
        type);
}

void bind_values(nb::module_& module) {
    nb::class_<DeviceModel>(module, "Model")
        .def_prop_ro("name", [](const DeviceModel& model) { return model.facts().name; })
        .def_prop_ro("kernels", [](const DeviceModel& model) { return model.facts().kernels; })
        .def_prop_ro("blocks", [](const DeviceModel& model) { return model.facts().blocks; })
        .def_prop_ro("weight_bytes", [](const DeviceModel& model) { return model.facts().weight_bytes; })
        .def_prop_ro("arena_bytes", [](const DeviceModel& model) { return model.facts().arena_bytes; })
        .def_prop_ro("snapshot_bytes", [](const DeviceModel& model) { return model.facts().snapshot_bytes; });

    nb::class_<RegionSizes>(module, "Region")
        .def_ro("c_size", &RegionSizes::c_size)
        .def_ro("d_size", &RegionSizes::d_size);

    nb::class_<EventRecord>(module, "Event")
        .def_prop_ro("kind", [](const EventRecord& event) { return event_name(event.kind); })
        .def_ro("time_ns", &EventRecord::time_ns)
        .def_ro("task", &EventRecord::task)
        .def_ro("session", &EventRecord::session)
        .def_ro("code", &EventRecord::code)
        .def_prop_ro("values",
                     [](const EventRecord& event) {
                         const auto& values = event.values;
                         return nb::make_tuple(values[0], values[1], values[2], values[3]);
                     })
        .def_prop_ro("text", [](const EventRecord& event) { return describe(event); });

    nb::class_<ModelProfile>(module, "Profile")
        .def(
            "__init__",
            [](ModelProfile* self, std::vector<uint64_t> kernel_ns,
               const std::vector<std::pair<uint32_t, uint32_t>>& padding) {
                new (self) ModelProfile{std::move(kernel_ns), {}};
                for (const auto& [last, split] : padding) {
                    self->padding.push_back({last, split});
                }
            },
            nb::kw_only(), nb::arg("kernel_ns") = std::vector<uint64_t>{},
            nb::arg("padding") = std::vector<std::pair<uint32_t, uint32_t>>{});

    nb::class_<TaskSpec>(module, "TaskSpec")
        .def("__init__", make_task_spec, nb::kw_only(), nb::arg("name"), nb::arg("task_class"), nb::arg("models"),
             nb::arg("slots"), nb::arg("deadline_ns") = 0, nb::arg("priority") = 0, nb::arg("weight") = 100,
             nb::arg("queue") = "fail", nb::arg("crc") = false, nb::arg("payload_crc") = false,
             nb::arg("signature") = 0, nb::arg("contexts") = 0, nb::arg("preemptible") = false,
             nb::arg("profiles") = std::vector<ModelProfile>{},
             nb::arg("bounds_ns") = std::array<uint64_t, kLatencies>{}, nb::arg("budget") = 0.0);
}

}  // namespace

void bind_engine(nb::module_& module) {
    using released = nb::call_guard<nb::gil_scoped_release>;
    bind_error(module);
    bind_values(module);
    nb::class_<Engine>(module, "Engine")
        .def(
            "__init__",
            [](Engine* self, std::string device, uint32_t workers, std::string policy, uint32_t max_sessions,
               bool realtime, int cpu, uint64_t stuck_ns) {
                new (self)
                    Engine({std::move(device), workers, std::move(policy), max_sessions, realtime, cpu, stuck_ns});
            },
            nb::kw_only(), nb::arg("device") = "cpu", nb::arg("workers") = 0, nb::arg("policy") = "reef",
            nb::arg("max_sessions") = 2000, nb::arg("realtime") = true, nb::arg("cpu") = -1,
            nb::arg("stuck_ns") = 10'000'000'000)
        .def_prop_ro("device", device_dict)
        .def_prop_ro("event_fd", &Engine::event_fd)
        .def_prop_ro("turns", &Engine::turns)
        .def("load", &Engine::load, nb::arg("spec"), released())
        .def("run", run, nb::arg("model"), nb::arg("inputs"), nb::arg("outputs"), nb::kw_only(),
             nb::arg("preemptible") = false)
        .def("start", &Engine::start, released())
        .def("stop", stop, nb::kw_only(), nb::arg("grace_ns"), nb::arg("keep_sessions"))
        .def("add_task", &Engine::add_task, nb::arg("spec"), released())
        .def("remove_task", &Engine::remove_task, nb::arg("task"), released())
        .def("region", &Engine::region, nb::arg("task"), released())
        .def(
            "attach",
            [](Engine& engine, uint32_t task, uint64_t session_id, uint64_t daemon_epoch, int c_fd, int d_fd,
               int doorbell_fd, int socket_fd, bool adopt) {
                return engine.attach({task, session_id, daemon_epoch, c_fd, d_fd, doorbell_fd, socket_fd, adopt});
            },
            nb::kw_only(), nb::arg("task"), nb::arg("session_id"), nb::arg("daemon_epoch"), nb::arg("c_fd"),
            nb::arg("d_fd"), nb::arg("doorbell_fd") = -1, nb::arg("socket_fd") = -1, nb::arg("adopt") = false,
            released())
        .def("set_wakeup", &Engine::set_wakeup, nb::kw_only(), nb::arg("session_id"), nb::arg("doorbell_fd"),
             nb::arg("socket_fd"), released())
        .def("detach", &Engine::detach, nb::kw_only(), nb::arg("session_id"), nb::arg("code"), released())
        .def(
            "set_spinning",
            [](Engine& engine, const std::string& mode) {
                engine.set_spinning(choose<Spinning>(
                    mode, {{"auto", Spinning::automatic}, {"always", Spinning::always}, {"never", Spinning::never}},
                    "spinning mode"));
            },
            nb::arg("mode"), released())
        .def("poll_events", &Engine::poll_events, released())
        .def("snapshot", snapshot_dict)
        .def(
            "advance",
            [](Engine& engine, uint64_t ns) {
                nb::gil_scoped_release given_up;
                return engine.advance(ns);
            },
            nb::arg("ns"))
        .def("trace", trace_list);

    module.def("keep_memory", keep_memory);
}

}  // namespace reef
