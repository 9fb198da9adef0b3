// SPDX-License-Identifier: Apache-2.0
#include "gpu_context.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace reef {
namespace {

constexpr size_t kWord = 128;  // words of different writers lie so far apart
constexpr size_t kProgress = kWord, kHostEpoch = 2 * kWord, kHostWords = 4096;

size_t aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }
size_t paged(size_t bytes) { return (bytes + 4095) / 4096 * 4096; }

}  // namespace

struct GpuContext::Layout {
    explicit Layout(const GpuModel& model)
        : inputs(aligned(model.facts().arena_bytes)), outputs(inputs + aligned(model.facts().input_bytes)),
          workspace(outputs + aligned(model.facts().output_bytes)), words(workspace + aligned(model.workspace_bytes)),
          left(words + 2 * kWord), end(left + aligned(model.record_bytes)) {}
    size_t inputs, outputs, workspace, words, left, end;
};

GpuContext::GpuContext(std::shared_ptr<const Driver> driver, std::shared_ptr<const GpuModel> model,
                       const GpuCapture& capture, ContextUse use)
    : driver_(std::move(driver)), model_(std::move(model)) {
    const ModelFacts& facts = model_->facts();
    const Layout layout(*model_);
    const std::string what = facts.name + ": an execution context";
    memory_ = DeviceMemory(driver_, layout.end, what);
    staged_inputs_ = kHostWords;
    staged_outputs_ = staged_inputs_ + paged(facts.input_bytes);
    host_ = HostMemory(driver_, staged_outputs_ + paged(facts.output_bytes), what);

    output_address_ = reinterpret_cast<uint64_t*>(host_.at(0));
    inputs_ = memory_.at(layout.inputs);
    outputs_ = memory_.at(layout.outputs);
    inputs.context = outputs.context = this;
    inputs.bytes = facts.input_bytes;
    outputs.bytes = facts.output_bytes;
    progress_ = reinterpret_cast<const uint32_t*>(host_.at(kProgress));
    window_words_ = memory_.at(layout.words + kWord);
    if (driver_->write_words) {
        epoch_word_ = memory_.at(layout.words);
    } else {
        epoch_word_ = host_.device_at(kHostEpoch);
        host_epoch_ = reinterpret_cast<uint32_t*>(host_.at(kHostEpoch));
        *host_epoch_ = epoch_;
    }
    // Between two outputs lie bytes that no kernel writes, and clients see them.
    driver_->check(driver_->fill(memory_.at(layout.outputs), 0, facts.output_bytes, capture.best_effort[0]), "filling");
    driver_->check(driver_->fill(memory_.at(layout.words), 0, layout.end - layout.words, capture.best_effort[0]),
                   "filling");
    driver_->check(driver_->synchronize(capture.best_effort[0]), "filling");
    if (!host_epoch_)
        driver_->check(driver_->upload(epoch_word_, &epoch_, sizeof epoch_), "writing an epoch");

    const auto count = static_cast<uint32_t>(model_->kernels.size());
    for (uint32_t k = 0; k <= count; k++)
        places_.push_back({epoch_word_, window_words_,
                           k < count ? memory_.at(layout.left + model_->kernels[k].left_offset) : nullptr,
                           host_.device_at(kProgress), k});
    for (uint32_t k = 0; k < count; k++) {
        GpuArgs args{};
        for (size_t i = 0; i < 8; i++)
            args.pointers[i] = resolve(model_->arguments[k][i], layout);
        arguments_.push_back(args);
    }
    try {
        if (use != ContextUse::best_effort)
            for (DriverStream* stream : capture.real_time)
                whole_.push_back(capture_range(stream, 0, count, false, model_->writes_outputs ? &capture : nullptr));
        if (use != ContextUse::real_time)
            capture_segments(capture);
    } catch (...) {
        release_graphs();
        throw;
    }
}

// A write of the epoch that lands after the memory belongs to another context would end that one's windows.
GpuContext::~GpuContext() {
    if (signals_)
        driver_->synchronize(signals_);
    release_graphs();
}

void GpuContext::release_graphs() {
    for (DriverGraphExec* graph : whole_)
        driver_->destroy_executable(graph);
    for (const GpuSegment& segment : segments_) {
        if (segment.plain)
            driver_->destroy_executable(segment.plain);
        for (DriverGraphExec* graph : segment.preemptible)
            driver_->destroy_executable(graph);
    }
}

const void* GpuContext::resolve(const GpuArgument& argument, const Layout& layout) const {
    switch (argument.memory) {
    case GpuMemory::none:
        return nullptr;
    case GpuMemory::constant:
        return model_->constants.at(argument.offset);
    case GpuMemory::workspace:
        return memory_.at(layout.workspace + argument.offset);
    case GpuMemory::binding:
        return host_.device_at(0);
    case GpuMemory::outputs:
        return memory_.at(layout.outputs);
    case GpuMemory::storage:
        break;
    }
    const uint64_t offset = model_->slot_offsets[argument.storage] + argument.offset;
    switch (model_->kinds[argument.storage]) {
    case StorageKind::input:
        return memory_.at(layout.inputs + offset);
    case StorageKind::output:
        return memory_.at(layout.outputs + offset);
    case StorageKind::weight:
        return model_->constants.at(model_->weight_offsets[argument.storage] + argument.offset);
    case StorageKind::arena:
        break;
    }
    return memory_.at(argument.offset);
}

// ---------------------------------------------------------------- the record

uint32_t GpuContext::done() const {
    done_ = std::max(done_, __atomic_load_n(progress_, __ATOMIC_ACQUIRE));
    return done_;
}

void GpuContext::clear() {
    __atomic_store_n(const_cast<uint32_t*>(progress_), 0, __ATOMIC_RELAXED);
    done_ = tries_ = reached_ = stale_reached_ = 0;
    bound_ = false;
    inputs.issued = outputs.issued = 0;
    inputs.urgent = outputs.urgent = false;
}

// ---------------------------------------------------------------- tensors

void GpuContext::bind(const Binding& binding) {
    bound_ = true;
    binding_ = binding;
    staged = !binding.device_reaches;
    const void* outputs_to = staged ? host_.device_at(staged_outputs_) : binding.outputs;
    __atomic_store_n(output_address_, reinterpret_cast<uint64_t>(outputs_to), __ATOMIC_RELEASE);
}

int GpuContext::copy_in(size_t at, size_t bytes, DriverStream* stream) const {
    const std::byte* from = binding_.inputs + at;
    if (staged)
        from = static_cast<const std::byte*>(std::memcpy(host_.at(staged_inputs_ + at), from, bytes));
    return driver_->upload_async(inputs_ + at, from, bytes, stream);
}

int GpuContext::copy_out(size_t at, size_t bytes, DriverStream* stream) const {
    std::byte* to = staged ? host_.at(staged_outputs_) : binding_.outputs;
    return driver_->download_async(to + at, outputs_ + at, bytes, stream);
}

int GpuContext::take_inputs(DriverStream* stream) {
    inputs.issued = inputs.bytes;
    return copy_in(0, inputs.bytes, stream);
}

int GpuContext::send_outputs(DriverStream* stream) {
    outputs.issued = outputs.bytes;
    return copy_out(0, outputs.bytes, stream);
}

void GpuContext::pass_on(size_t at, size_t bytes) const {
    if (staged)
        std::memcpy(binding_.outputs + at, host_.at(staged_outputs_ + at), bytes);
}

bool GpuContext::shield(uint32_t kernel, uint32_t limit) {
    tries_ = tries_ != 0 && tried_kernel_ == kernel ? tries_ + 1 : 1;
    tried_kernel_ = kernel;
    return tries_ > limit;
}

std::optional<DriverWord> GpuContext::invalidate(DriverStream* signals) {
    if (reached_ != 0)
        stale_reached_ = reached_;
    reached_ = 0;
    epoch_++;
    if (!host_epoch_) {
        signals_ = signals;
        return DriverWord{epoch_word_, epoch_};
    }
    __atomic_store_n(host_epoch_, epoch_, __ATOMIC_SEQ_CST);
    return std::nullopt;
}

// ---------------------------------------------------------------- launching

int GpuContext::launch_kernel(DriverStream* stream, uint32_t k, bool preemptible, bool overlap) const {
    const GpuKernel& kernel = model_->kernels[k];
    void* arguments[] = {const_cast<GpuArgs*>(&arguments_[k]), const_cast<GpuPlace*>(&places_[k])};
    return driver_->launch(preemptible ? kernel.preemptible : kernel.plain, kernel.blocks, kernel.threads,
                           kernel.shared_bytes, stream, arguments, overlap);
}

int GpuContext::launch_range(DriverStream* stream, uint32_t split, uint32_t first, uint32_t last,
                             bool preemptible) const {
    int status = 0;
    for (uint32_t k = first; k < last && status == 0;) {
        const size_t index = k / kSegment;
        const GpuSegment* segment =
            index < segments_.size() && (preemptible || split == 0) ? &segments_[index] : nullptr;
        // A graph may begin with kernels that are done, where the window's words say so.
        const bool fits = segment && segment->last <= last &&
                          (segment->first == k || (preemptible && k == first && window_.first == k));
        if (fits) {
            status = driver_->launch_graph(preemptible ? segment->preemptible[split] : segment->plain, stream);
            k = segment->last;
        } else {
            status = launch_kernel(stream, k, preemptible, k > first);
            k++;
        }
    }
    return status;
}

int GpuContext::launch_plain(DriverStream* stream, uint32_t split, uint32_t first, uint32_t last) const {
    return launch_range(stream, split, first, last, false);
}

// The first window of a request, or of an epoch, says where its kernels go on; those behind it are further on anyway.
int GpuContext::launch_preemptible(DriverStream* stream, uint32_t split, uint32_t first, uint32_t last,
                                   uint32_t shielded) {
    const bool goes_on = reached_ != 0;
    GpuWindow window = goes_on ? window_ : GpuWindow{epoch_, first, stale_reached_, 0};
    window.shielded = shielded;
    reached_ = std::max(reached_, last);
    int status = 0;
    if (window != window_) {
        window_ = window;
        const uint64_t from = uint64_t{window.first} << 32 | window.epoch;
        const uint64_t after = uint64_t{shielded} << 32 | (goes_on ? UINT32_MAX : window.reached);
        GpuArgs args{{window_words_, reinterpret_cast<const void*>(from), reinterpret_cast<const void*>(after)}};
        GpuPlace place{};
        void* arguments[] = {&args, &place};
        status = driver_->launch(model_->window_begin, 1, 1, 0, stream, arguments, false);
    }
    return status == 0 ? launch_range(stream, split, first, last, true) : status;
}

int GpuContext::launch_end(DriverStream* stream, const void* count, void* mark, uint32_t last, bool preemptible) const {
    GpuArgs args{{count, mark}};
    GpuPlace place = places_[last];
    if (!preemptible)
        place.progress = nullptr;
    void* arguments[] = {&args, &place};
    return driver_->launch(model_->window_end, 1, 1, 0, stream, arguments, false);
}

// ---------------------------------------------------------------- graphs

void GpuContext::capture_segments(const GpuCapture& capture) {
    const auto count = static_cast<uint32_t>(model_->kernels.size());
    for (uint32_t first = 0; first < count; first += kSegment) {
        const uint32_t last = std::min(count, first + kSegment);
        GpuSegment& segment = segments_.emplace_back(GpuSegment{first, last, nullptr, {}});
        segment.plain = capture_range(capture.best_effort[0], first, last, false, nullptr);
        for (DriverStream* stream : capture.best_effort)
            segment.preemptible.push_back(capture_range(stream, first, last, true, nullptr));
    }
}

DriverGraphExec* GpuContext::capture_range(DriverStream* stream, uint32_t first, uint32_t last, bool preemptible,
                                           const GpuCapture* end) const {
    driver_->check(driver_->begin_capture(stream), "capturing", model_->facts().name);
    int status = 0;
    for (uint32_t k = first; k < last && status == 0; k++)
        status = launch_kernel(stream, k, preemptible, k > first);
    if (end && status == 0) {
        GpuArgs args{{end->count, end->mark}};
        GpuPlace place{};
        void* arguments[] = {&args, &place};
        status = driver_->launch(model_->window_end, 1, 1, 0, stream, arguments, true);
    }
    DriverGraph* graph = nullptr;
    const int ended = driver_->end_capture(stream, &graph);
    driver_->check(status, "capturing a kernel", model_->facts().name);
    driver_->check(ended, "capturing", model_->facts().name);
    DriverGraphExec* executable = nullptr;
    status = driver_->instantiate(&executable, graph);
    driver_->destroy_graph(graph);
    driver_->check(status, "making a graph", model_->facts().name);
    return executable;
}

}  // namespace reef
