// SPDX-License-Identifier: Apache-2.0
#include "gpu_device.hpp"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "clock.hpp"

namespace reef {
namespace {

constexpr size_t kWord = 128;
constexpr size_t kTransfers = 2;  // inputs and outputs
// A stale window passes through its queue at about a microsecond a kernel, and large grids at several: so a window is a graph at
// most, and of long kernels a part of one. One runs on each queue, and one waits.
constexpr uint64_t kWindowNs = 100'000;
constexpr uint32_t kWindowsEach = 2;

// Less than this, half a microsecond, goes with its window.
constexpr size_t kSmallInputs = 16 << 10;
// A real-time input is taken to be copied after its bytes at this rate, that of PCIe 3.0 x8. A word written behind it would
// stand between it and the model's first kernel.
constexpr uint64_t kSlowestBytesPerNs = 8;

// A driver call that was not made for milliseconds has left the caches and takes ten times its microsecond. Preemption waits
// for one of two, that for a word and that for several, so each is made every second time that this has passed while there is
// something to preempt. (Real-time work that gives way to real-time work is rare, and goes without.)
constexpr uint64_t kWarmNs = 50'000;

// Splits that are offered. Of the 132 units of an H200, real-time kernels of 98 blocks could spare 32 and not 48.
constexpr size_t kMostSplits = 4;

// Code for Hopper uses what its successors do not have.
std::string target_name(int major, int minor) {
    if (major == 0)
        return "";
    return "sm_" + std::to_string(10 * major + minor) + (major == 9 ? "a" : "");
}

GpuContext& own(Context& context) { return static_cast<GpuContext&>(context); }

}  // namespace

std::unique_ptr<GpuDevice> make_gpu_device(const std::string& kind, const GpuOptions& options) {
    return std::make_unique<GpuDevice>(kind == "hip" ? open_hip_driver() : open_cuda_driver(), options);
}

GpuDevice::GpuDevice(std::shared_ptr<const Driver> driver, const GpuOptions& options)
    : driver_(std::move(driver)), options_(options), queues_(1 + options.best_effort_queues) {
    int devices = 0;
    driver_->check(driver_->count(&devices), "counting devices");
    if (options.ordinal >= devices)
        throw DriverError(driver_->kind + ": there is no device " + std::to_string(options.ordinal) + "; " +
                          driver_->library + " knows " + std::to_string(devices));
    driver_->check(driver_->open(options.ordinal, &device_), "opening the device");
    describe();
    const size_t words = (queues_.size() + kTransfers + 1) * kWord;
    counts_ = DeviceMemory(driver_, words, "the queues");
    words_ = HostMemory(driver_, words, "the queues");
    int least = 0, greatest = 0;
    driver_->check(driver_->priorities(&least, &greatest), "asking for priorities");
    auto stream = [&](int priority) {
        DriverStream* made = nullptr;
        driver_->check(driver_->make_stream(&made, priority), "making a stream");
        return made;
    };
    signals_ = stream(greatest);
    capture_real_time_ = {stream(greatest)};
    capture_best_effort_ = {stream(least)};
    driver_->check(driver_->fill(counts_.at(0), 0, words, signals_), "filling");
    driver_->check(driver_->synchronize(signals_), "filling");
    for (size_t i = 0; i < queues_.size(); i++) {
        Queue& queue = queues_[i];
        queue.stream = stream(i == kRealTimeQueue ? greatest : least);
        queue.streams = {queue.stream};
        driver_->check(driver_->make_event(&queue.changed), "making an event");
        queue.count = counts_.at(i * kWord);
        queue.mark = words_.device_at(i * kWord);
        queue.word = reinterpret_cast<const uint32_t*>(words_.at(i * kWord));
    }
    auto transfers = [&](GpuTransfers::Direction direction, size_t i) {
        const GpuTransfers::Words of{counts_.at(i * kWord), words_.device_at(i * kWord),
                                     reinterpret_cast<const uint32_t*>(words_.at(i * kWord))};
        return std::make_unique<GpuTransfers>(driver_, direction, least, greatest, of);
    };
    inputs_ = transfers(GpuTransfers::Direction::to_device, queues_.size());
    outputs_ = transfers(GpuTransfers::Direction::to_host, queues_.size() + 1);
    unread_ = counts_.at((queues_.size() + kTransfers) * kWord);
    make_splits(least, greatest);
}

// A few, since every context is captured for each. What the driver refuses is not offered.
void GpuDevice::make_splits(int least, int greatest) {
    const uint32_t units = info_.compute_units, granule = driver_->split_granule(device_, units);
    for (uint32_t aside = granule; granule != 0 && aside <= units / 2 && splits_.size() < kMostSplits;
         aside += granule) {
        DriverSplit* split = nullptr;
        if (driver_->make_split(&split, device_, units, aside) != 0)
            break;
        splits_.push_back(split);
        auto stream = [&](bool set_aside) {
            DriverStream* made = nullptr;
            driver_->check(driver_->make_split_stream(&made, split, set_aside, set_aside ? least : greatest),
                           "making a stream on some of the compute units");
            return made;
        };
        capture_real_time_.push_back(stream(false));
        capture_best_effort_.push_back(stream(true));
        for (size_t i = 0; i < queues_.size(); i++)
            queues_[i].streams.push_back(stream(i != kRealTimeQueue));
        info_.split_granule = granule;
        info_.split_most = aside;
    }
}

GpuDevice::~GpuDevice() {
    enter();
    for (const Queue& queue : queues_) {
        for (DriverStream* stream : queue.streams)
            driver_->destroy_stream(stream);
        driver_->destroy_event(queue.changed);
    }
    driver_->destroy_stream(signals_);
    inputs_.reset();
    outputs_.reset();
    for (const auto& streams : {capture_best_effort_, capture_real_time_})
        for (DriverStream* stream : streams)
            driver_->destroy_stream(stream);
    for (DriverSplit* split : splits_)
        driver_->destroy_split(split);
}

void GpuDevice::describe() {
    char name[256] = {};
    driver_->check(driver_->name(name, sizeof name - 1, device_), "asking for the name");
    int units = 0, version = 0, major = 0, minor = 0;
    driver_->check(driver_->attribute(DriverAttribute::compute_units, &units, device_), "counting compute units");
    driver_->version(&version);
    size_t free = 0, total = 0;
    driver_->check(driver_->memory(&free, &total), "asking for the memory");
    int least = 0, greatest = 0;
    driver_->check(driver_->priorities(&least, &greatest), "asking for priorities");
    std::string detail = driver_->library + ", version " + std::to_string(version);
    if (driver_->attribute(DriverAttribute::capability_major, &major, device_) == 0 &&
        driver_->attribute(DriverAttribute::capability_minor, &minor, device_) == 0)
        info_.target = target_name(major, minor);
    if (!info_.target.empty())
        detail += ", " + info_.target;
    info_ = {.name = name,
             .detail = detail,
             .compute_units = static_cast<uint32_t>(units),
             .queues = static_cast<uint32_t>(queues_.size()),
             .queue_depth = kDepth,
             .split_granule = 0,
             .split_most = 0,
             .can_reset = true,
             .may_spin = true,
             .real_time = true,
             .target = info_.target,
             .memory_total = total,
             .memory_free = free,
             .priorities = least - greatest + 1,
             .window_ns = kWindowNs,
             .window_kernels = kSegment,
             .windows_each = kWindowsEach};
}

// Every thread names the device once.
void GpuDevice::enter() const {
    static thread_local const GpuDevice* entered = nullptr;
    if (entered != this) {
        driver_->make_current(device_);
        entered = this;
    }
}

// ---------------------------------------------------------------- loader thread

std::shared_ptr<DeviceModel> GpuDevice::load(const ModelSpec& spec) {
    std::lock_guard lock(loading_);
    enter();
    try {
        return std::make_shared<GpuModel>(driver_, spec);
    } catch (const DriverError& error) {
        throw ModelError(spec.name() + ": " + error.what());
    }
}

std::unique_ptr<Context> GpuDevice::make_context(std::shared_ptr<DeviceModel> model, ContextUse use) {
    std::lock_guard lock(loading_);
    enter();
    const GpuCapture capture{capture_real_time_, capture_best_effort_, queues_[kRealTimeQueue].count,
                             queues_[kRealTimeQueue].mark};
    try {
        return std::make_unique<GpuContext>(driver_, std::static_pointer_cast<const GpuModel>(std::move(model)),
                                            capture, use);
    } catch (const DriverError& error) {
        throw ModelError(error.what());
    }
}

bool GpuDevice::reach(std::byte* memory, size_t bytes, std::string& refused) {
    if (!driver_->register_host)
        return false;
    enter();
    try {
        int same_address = 0;
        driver_->check(driver_->attribute(DriverAttribute::host_pointers, &same_address, device_),
                       "asking for addresses");
        if (same_address == 0)
            throw DriverError(driver_->kind + ": registered memory has another address on this device");
        driver_->check(driver_->register_host(memory, bytes), "registering memory of a client",
                       std::to_string(bytes) + " bytes");
    } catch (const DriverError& error) {
        refused = error.what();
        return false;
    }
    return true;
}

void GpuDevice::forget(std::byte* memory) {
    enter();
    driver_->unregister_host(memory);
}

// ---------------------------------------------------------------- engine thread

void GpuDevice::launch(QueueId id, const Window& window) {
    enter();
    Queue& queue = queues_[id];
    GpuContext& context = own(*window.context);
    const uint32_t first = std::max(window.first, context.done());
    const bool runs = first < window.last && !(window.preemptible && window.epoch != queue.epoch);
    const uint32_t split = info_.split_granule != 0 ? window.split / info_.split_granule : 0;
    int status = choose_stream(queue, runs ? split : 0);
    if (runs && status == 0 && !context.bound()) {
        context.bind(window.binding);
        status = context.take_inputs(queue.stream);
        if (id == kRealTimeQueue)
            real_time_inputs_ns_ = monotonic_ns() + context.model().facts().input_bytes / kSlowestBytesPerNs;
    }
    // Outputs of plain kernels on the real-time queue: nothing takes those back, so a copy behind them sends whole ones.
    const bool ends = runs && window.last == context.model().kernels.size();
    const bool plain_end = ends && !window.preemptible && id == kRealTimeQueue;
    const bool brings = ends && (context.model().writes_outputs || plain_end);
    queue.flight(window.mark) = {&context, window.last,        window.epoch, context.epoch(),
                                 brings,   window.preemptible, false,        runs};
    queue.launched = window.mark;
    context.outputs.urgent = id == kRealTimeQueue;

    const bool whole = plain_end && first == 0 && context.has_whole();
    if (status == 0 && whole) {
        status = context.launch_whole(queue.stream, split);
    } else if (status == 0 && runs && !window.preemptible) {
        status = context.launch_plain(queue.stream, split, first, window.last);
    } else if (status == 0 && runs) {
        const bool again = first == context.done() && context.shield(first, options_.shield_after);
        const uint32_t shielded = window.finish_blocks ? UINT32_MAX : again ? first + 1 : 0;
        status = context.launch_preemptible(queue.stream, split, first, window.last, shielded);
    }
    if (status == 0 && plain_end && !context.model().writes_outputs)
        status = context.send_outputs(queue.stream);
    if (status == 0 && !(whole && context.model().writes_outputs))  // else its end is within
        status = context.launch_end(queue.stream, queue.count, queue.mark, window.last, runs && window.preemptible);
    if (status != 0)
        failed(status, "launching a window");
}

int GpuDevice::choose_stream(Queue& queue, uint32_t split) const {
    DriverStream* stream = queue.streams[split];
    if (stream == queue.stream)
        return 0;
    int status = driver_->record_event(queue.changed, queue.stream);
    if (status == 0)
        status = driver_->wait_event(stream, queue.changed);
    queue.stream = stream;
    return status;
}

void GpuDevice::write_epoch(QueueId queue, uint32_t epoch) {
    invalidate({queue, epoch});
    write_words();
}

void GpuDevice::write_epochs(std::span<const QueueEpoch> epochs) {
    for (const QueueEpoch& epoch : epochs)
        invalidate(epoch);
    write_words();
}

// One word for all windows of a request.
void GpuDevice::invalidate(const QueueEpoch& to) {
    Queue& queue = queues_[to.queue];
    queue.epoch = to.epoch;
    retired(to.queue);
    for (uint32_t mark = queue.seen + 1; static_cast<int32_t>(queue.launched - mark) >= 0; mark++) {
        Flight& flight = queue.flight(mark);
        if (flight.stale || !flight.preemptible || flight.epoch == to.epoch)
            continue;
        flight.stale = true;
        if (!flight.runs || flight.context->epoch() != flight.context_epoch)
            continue;
        if (const std::optional<DriverWord> word = flight.context->invalidate(signals_))
            to_write_[to_write_count_++] = *word;
        if (to_write_count_ == to_write_.size())
            write_words();
    }
}

void GpuDevice::write_words() {
    const uint32_t count = std::exchange(to_write_count_, 0);
    if (count == 0)
        return;
    enter();
    if (const int status = driver_->write_words(signals_, to_write_.data(), count); status != 0)
        failed(status, "writing an epoch");
}

uint32_t GpuDevice::retired(QueueId id) const {
    Queue& queue = queues_[id];
    const uint32_t mark = __atomic_load_n(queue.word, __ATOMIC_ACQUIRE);
    while (queue.seen != mark && queue.seen != queue.launched)
        settle(queue, queue.flight(++queue.seen));
    return queue.seen;
}

void GpuDevice::settle(Queue& queue, Flight& flight) const {
    if (flight.runs && !flight.preemptible)
        flight.context->finish_plain(flight.last);
    if (flight.brings && flight.context->done() == flight.context->model().kernels.size())
        flight.context->pass_on(0, flight.context->outputs.bytes);
    if (flight.stale)
        queue.vacated_ns = monotonic_ns();
}

uint32_t GpuDevice::kernels_done(const Context& context) const {
    return static_cast<const GpuContext&>(context).done();
}

void GpuDevice::clear_record(Context& context) { own(context).clear(); }

uint64_t GpuDevice::now_ns() const { return monotonic_ns(); }

// ---------------------------------------------------------------- tensors of best-effort requests

bool GpuDevice::fetch(Context& of, const Binding& binding) {
    GpuContext& context = own(of);
    if (!context.bound()) {
        if (context.inputs.bytes <= kSmallInputs)
            return true;
        context.bind(binding);
        inputs_->begin(context.inputs);
    }
    return !context.inputs.open || inputs_->landed(context.inputs);
}

bool GpuDevice::deliver(Context& of) {
    GpuContext& context = own(of);
    GpuTransfer& outputs = context.outputs;
    if (context.model().writes_outputs || (outputs.whole() && !outputs.open))
        return true;  // they came with a window, or were reported
    if (!outputs.open)
        outputs_->begin(outputs);
    return outputs_->landed(outputs);
}

bool GpuDevice::drop(Context& of) {
    GpuContext& context = own(of);
    const bool inputs = inputs_->drop(context.inputs), outputs = outputs_->drop(context.outputs);
    return inputs && outputs;
}

void GpuDevice::poll(bool hold) {
    held_ = hold;
    const uint64_t now_ns = monotonic_ns();
    if (!hold && now_ns - warmed_ns_ >= kWarmNs)
        keep_warm(now_ns);
    if (!inputs_->open() && !outputs_->open())
        return;
    enter();
    if (!hold && inputs_->open() && now_ns >= real_time_inputs_ns_)
        if (const int status = inputs_->poll(false); status != 0)
            failed(status, "copying inputs");
    if (const int status = outputs_->poll(hold); status != 0)
        failed(status, "copying outputs");
}

void GpuDevice::keep_warm(uint64_t now_ns) {
    const bool any = std::any_of(queues_.begin() + kRealTimeQueue + 1, queues_.end(), [](Queue& queue) {
        return queue.seen != queue.launched && queue.flight(queue.launched).preemptible;
    });
    if (!any || !driver_->write_words)
        return;
    warmed_ns_ = now_ns;
    for (uint32_t words = 1 + ++warmings_ % 2; words != 0; words--)
        to_write_[to_write_count_++] = {unread_, 0};
    write_words();
}

// ---------------------------------------------------------------- faults

void GpuDevice::failed(int status, const char* call) {
    if (faulted_)
        return;
    const char* name = driver_->error_name(status);
    std::snprintf(fault_, sizeof fault_, "%s: %s (%d)", call, name ? name : "error", status);
    faulted_ = true;
}

const char* GpuDevice::fault() {
    enter();
    for (QueueId id = 0; !faulted_ && id < queues_.size(); id++) {
        if (retired(id) == queues_[id].launched)
            continue;
        const int status = driver_->query(queues_[id].stream);
        if (status != 0 && status != driver_->not_ready)
            failed(status, "running a window");
    }
    for (const auto* transfers : {&inputs_, &outputs_})
        if (const int status = faulted_ || !(*transfers)->in_flight() ? 0 : driver_->query((*transfers)->stream());
            status != 0 && status != driver_->not_ready)
            failed(status, "copying tensors");
    return faulted_ ? fault_ : nullptr;
}

}  // namespace reef
