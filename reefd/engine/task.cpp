// SPDX-License-Identifier: Apache-2.0
// Makes a task: models, their tensors, and every execution context it will ever use.
#include "task.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "failure.hpp"

namespace reef {
namespace {

// Two best-effort requests of a task can be in progress side by side; real-time requests run one after the other, so
// more contexts would only hold memory.
constexpr uint32_t kBestEffortContexts = 2;
constexpr uint32_t kRealTimeContexts = 1;
constexpr uint64_t kMaxArea = uint64_t{1} << 32;

uint64_t pages(uint64_t bytes) { return (bytes + REEF_PAGE - 1) / REEF_PAGE * REEF_PAGE; }

// "echo:<bytes>": see TaskSpec in _engine.pyi.
uint64_t echo_bytes(const std::string& task, const std::string& name) {
    const std::string prefix = "echo:";
    uint64_t bytes = 0;
    const char* end = name.data() + name.size();
    const auto parsed = name.starts_with(prefix) ? std::from_chars(name.data() + prefix.size(), end, bytes)
                                                 : std::from_chars_result{nullptr, std::errc::invalid_argument};
    if (parsed.ec != std::errc{} || parsed.ptr != end || bytes < 8 || bytes > kMaxArea) {
        throw EngineFailure(-EINVAL, "task " + task + ": model " + name +
                                         " is not loaded, and no echo: that is written echo:<bytes>, at least 8");
    }
    return bytes;
}

void check(const TaskSpec& spec) {
    auto refuse = [&](const std::string& why) { throw EngineFailure(-EINVAL, "task " + spec.name + ": " + why); };
    if (spec.name.empty() || spec.name.size() >= REEF_NAME_MAX) {
        refuse("a name has 1 to 63 bytes");
    }
    if (spec.slots == 0 || spec.slots > REEF_MAX_SLOTS) {
        refuse("slots must lie in 1.." + std::to_string(REEF_MAX_SLOTS));
    }
    if (spec.models.empty() || spec.models.size() > REEF_MAX_MODELS) {
        refuse("1 to " + std::to_string(REEF_MAX_MODELS) + " models are possible");
    }
    if (!spec.profiles.empty() && spec.profiles.size() != spec.models.size()) {
        refuse("profiles must be given for each model or for none");
    }
    if (spec.preemptible && !spec.real_time) {
        refuse("preemptible is for real-time tasks; best-effort work always is");
    }
    if (spec.weight == 0 || spec.weight > 1'000'000) {
        refuse("weight must lie in 1..1000000");
    }
}

// Its model is loaded, `kernels` is set.
void take_profile(Task& task, size_t index, const DeviceInfo& device) {
    TaskModel& model = task.models[index];
    const std::vector<ModelProfile>& profiles = task.spec.profiles;
    const ModelProfile profile = profiles.empty() ? ModelProfile{} : profiles[index];
    const std::string problem = profile_problem(profile, model.kernels, device);
    if (!problem.empty()) {
        throw EngineFailure(-EINVAL, "task " + task.spec.name + ", model " + model.name + ": profile: " + problem);
    }
    model.padding = profile.padding;
    model.times.set(profile.kernel_ns, model.model->facts().blocks, device.compute_units);
}

}  // namespace

Task::Task(uint32_t id_, TaskSpec spec_, Device& device) : id(id_), spec(std::move(spec_)) {
    check(spec);
    tokens = spec.bounds.budget_ppm != 0 ? kBoundToken : 0;
    models.resize(spec.models.size());
    size_t tensors = 0;
    for (size_t i = 0; i < models.size(); ++i) {
        const auto& [name, loaded] = spec.models[i];
        TaskModel& model = models[i];
        if (name.empty() || name.size() >= REEF_NAME_MAX) {
            throw EngineFailure(-EINVAL, "task " + spec.name + ": a model's name has 1 to 63 bytes");
        }
        model.name = name;
        model.model = loaded;
        if (loaded) {
            model.inputs = loaded->facts().inputs;
            model.outputs = loaded->facts().outputs;
            model.input_area = loaded->facts().input_bytes;
            model.output_area = loaded->facts().output_bytes;
            model.kernels = loaded->kernels();
            take_profile(*this, i, device.info());
            const uint32_t contexts =
                spec.contexts ? spec.contexts : (spec.real_time ? kRealTimeContexts : kBestEffortContexts);
            const ContextUse use = !spec.real_time    ? ContextUse::best_effort
                                   : spec.preemptible ? ContextUse::either
                                                      : ContextUse::real_time;
            for (uint32_t c = 0; c < contexts; ++c) {
                model.contexts.push_back(device.make_context(loaded, use));
                model.free_contexts.push_back(model.contexts.back().get());
            }
        } else {
            const uint64_t bytes = echo_bytes(spec.name, name);
            model.inputs.push_back({"input", REEF_UINT8, {static_cast<int64_t>(bytes)}, 0, bytes});
            model.outputs.push_back({"output", REEF_UINT8, {16}, 0, 16});
            model.input_area = pages(bytes);
            model.output_area = REEF_PAGE;
        }
        model.input_area = pages(model.input_area);
        model.output_area = pages(model.output_area);
        if (model.input_area > kMaxArea || model.output_area > kMaxArea) {
            throw EngineFailure(-EINVAL, "task " + spec.name + ", model " + name + ": tensors of more than 4 GiB");
        }
        for (const auto* list : {&model.inputs, &model.outputs}) {
            tensors += list->size();
            for (const ModelTensor& tensor : *list) {
                if (tensor.name.size() >= REEF_NAME_MAX || tensor.shape.size() > REEF_MAX_RANK) {
                    throw EngineFailure(-EINVAL, "task " + spec.name + ", model " + name + ", tensor " + tensor.name +
                                                     ": names have up to 63 bytes, shapes up to 8 dimensions");
                }
            }
        }
    }
    if (tensors > REEF_MAX_TENSORS) {
        throw EngineFailure(-EINVAL, "task " + spec.name + ": more than " + std::to_string(REEF_MAX_TENSORS) +
                                         " inputs and outputs");
    }
}

}  // namespace reef
