// SPDX-License-Identifier: Apache-2.0
#include "engine.hpp"

#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "clock.hpp"
#include "crash.hpp"
#include "failure.hpp"
#include "gpu_device.hpp"
#include "region.hpp"
#include "thread.hpp"

namespace reef {

namespace {

std::unique_ptr<Device> make_device(const EngineOptions& options, bool exclusive) {
    const DeviceOptions device{options.workers, options.realtime, exclusive};
    if (options.device == "cpu") {
        return make_cpu_device(device);
    }
    if (options.device == "simulated" || options.device == "simulated graphs") {
        return std::make_unique<SimulatedDevice>(device, options.device != "simulated");
    }
    if (options.device == "cuda" || options.device == "hip") {
        try {
            return make_gpu_device(options.device);
        } catch (const DriverError& error) {
            throw EngineFailure(-ENODEV, "device '" + options.device + "': " + error.what());
        }
    }
    throw EngineFailure(-ENODEV, "device '" + options.device + "' is unknown; there are: cpu, cuda, hip, simulated");
}

std::unique_ptr<Policy> find_policy(const std::string& name) {
    std::unique_ptr<Policy> policy = make_policy(name);
    if (!policy) {
        std::string known;
        for (const std::string& each : policy_names()) {
            known += (known.empty() ? "" : ", ") + each;
        }
        throw EngineFailure(-EINVAL, "policy '" + name + "' is unknown; there are: " + known);
    }
    return policy;
}

}  // namespace

Engine::Engine(const EngineOptions& options)
    : options_(options), policy_(find_policy(options.policy)), device_(make_device(options, policy_->exclusive())),
      simulated_(dynamic_cast<SimulatedDevice*>(device_.get())), by_index_(options.max_sessions) {
    if (options.max_sessions == 0 || options.max_sessions > RobustWords::kMaxWords) {
        throw EngineFailure(-EINVAL, "max_sessions must lie in 1.." + std::to_string(RobustWords::kMaxWords));
    }
    LoopOptions loop;
    loop.max_sessions = options.max_sessions;
    loop.own_thread = simulated_ == nullptr;
    if (device_->info().window_ns != 0) {
        loop.limits.window_ns = device_->info().window_ns;
        loop.limits.padding_window_ns = std::min(loop.limits.padding_window_ns, loop.limits.window_ns);
        // Moving a window costs about as much as a stale one takes to retire: 20 us on an H200. Left where it is, it keeps
        // its request on a few units of a free device: 100 us of that, after each real-time request, made a plan worse than none.
        loop.limits.widen_ns = loop.limits.window_ns / 5;
    }
    loop.stuck_ns = options.stuck_ns;
    crash::install();
    loop_ = std::make_unique<Loop>(*device_, *policy_, loop);
}

Engine::~Engine() {
    if (state_ == State::running) {
        stop(0, true);
    }
}

std::shared_ptr<DeviceModel> Engine::load(const ModelSpec& spec) { return device_->load(spec); }

uint64_t Engine::run(const std::shared_ptr<DeviceModel>& model, const Binding& binding, bool preemptible) {
    std::lock_guard lock(mutex_);
    if (state_ != State::made) {
        throw EngineFailure(-EBUSY, "a model runs without a session only before start()");
    }
    const std::unique_ptr<Context> context = device_->make_context(model);
    device_->clear_record(*context);
    const QueueId queue = preemptible ? 1 : kRealTimeQueue;
    constexpr uint32_t epoch = kFirstEpoch - 1;
    if (preemptible) {
        device_->write_epoch(queue, epoch);
    }
    const uint32_t mark = device_->retired(queue) + 1;
    const uint64_t start_ns = device_->now_ns();
    device_->launch(queue, {context.get(), binding, 0, model->kernels(), epoch, preemptible, mark});
    while (device_->retired(queue) != mark) {
        if (simulated_) {
            simulated_->advance_to(simulated_->next_event_ns());
        } else if (device_->arm() && device_->event_fd() >= 0) {
            pollfd wait{.fd = device_->event_fd(), .events = POLLIN, .revents = 0};
            poll(&wait, 1, 100);
        }
    }
    return device_->now_ns() - start_ns;
}

// ---------------------------------------------------------------- life

void* Engine::thread_main(void* self) {
    auto& engine = *static_cast<Engine*>(self);
    const int priority = prepare_engine_thread(engine.options_.cpu, engine.options_.realtime);
    engine.loop_->set_realtime(priority);
    engine.thread_realtime_ = priority != 0;
    engine.loop_->begin();
    engine.thread_ready_ = 1;
    engine.thread_ready_.notify_one();
    engine.loop_->run();
    return nullptr;
}

void Engine::start() {
    std::lock_guard lock(mutex_);
    if (state_ != State::made) {
        throw EngineFailure(-EALREADY, "the engine was started before");
    }
    if (simulated_) {
        loop_->begin();
    } else {
        thread_ = start_engine_thread(thread_main, this);
        thread_ready_.wait(0);
    }
    state_ = State::running;
}

StopCounts Engine::stop(uint64_t grace_ns, bool keep_sessions) {
    std::lock_guard lock(mutex_);
    require_running();
    Command command{.kind = CommandKind::stop};
    command.grace_ns = grace_ns;
    command.keep_sessions = keep_sessions;
    send(command);
    if (simulated_) {
        while (!loop_->stopped()) {
            const uint64_t next = std::min(simulated_->next_event_ns(), loop_->next_timer_ns());
            simulated_->advance_to(std::max(next, simulated_->now_ns() + 1));
            loop_->turn();
        }
        loop_->end();
    } else {
        pthread_join(thread_, nullptr);
    }
    state_ = State::stopped;
    forget_sessions();
    return loop_->stop_counts();
}

// A device that did not let go within the time that the loop gives it still writes to the regions: they stay mapped, and
// the process is about to end.
void Engine::forget_sessions() {
    std::fill(by_index_.begin(), by_index_.end(), nullptr);
    if (loop_->device_released()) {
        sessions_.clear();
        return;
    }
    for (auto& [id, session] : sessions_) {
        static_cast<void>(session.release());
    }
    for (auto& [id, task] : tasks_) {
        static_cast<void>(task.release());
    }
    sessions_.clear();
    tasks_.clear();
}

void Engine::require_running() const {
    if (state_ != State::running) {
        throw EngineFailure(-ENOTCONN, state_ == State::made ? "the engine was not started" : "the engine was stopped");
    }
}

void Engine::send(Command& command) { loop_->submit(command); }

// ---------------------------------------------------------------- tasks

Task& Engine::task_of(uint32_t id) {
    const auto found = tasks_.find(id);
    if (found == tasks_.end()) {
        throw EngineFailure(-ENOENT, "there is no task " + std::to_string(id));
    }
    return *found->second;
}

uint32_t Engine::add_task(const TaskSpec& spec) {
    // Execution contexts take time to make: sessions must not wait for it.
    const uint32_t id = next_task_++;
    auto task = std::make_unique<Task>(id, spec, *device_);
    std::lock_guard lock(mutex_);
    tasks_.emplace(id, std::move(task));
    return id;
}

void Engine::remove_task(uint32_t id) {
    std::lock_guard lock(mutex_);
    if (const uint32_t sessions = task_of(id).sessions; sessions != 0) {
        throw EngineFailure(-EBUSY, "task " + std::to_string(id) + " has " + std::to_string(sessions) + " sessions");
    }
    const auto task = std::move(tasks_.at(id));
    tasks_.erase(id);
}

RegionSizes Engine::region(uint32_t id) {
    std::lock_guard lock(mutex_);
    const Layout layout(task_of(id));
    return {layout.header.c_size, layout.header.d_size};
}

// ---------------------------------------------------------------- sessions

Session& Engine::session_of(uint64_t id) {
    const auto found = sessions_.find(id);
    if (found == sessions_.end()) {
        throw EngineFailure(-ENOENT, "there is no session " + std::to_string(id));
    }
    return *found->second;
}

uint32_t Engine::free_index() const {
    const auto found = std::find(by_index_.begin(), by_index_.end(), nullptr);
    if (found == by_index_.end()) {
        throw EngineFailure(-EMFILE, "all " + std::to_string(by_index_.size()) + " sessions are in use");
    }
    return static_cast<uint32_t>(found - by_index_.begin());
}

std::string Engine::attach(const AttachRequest& request) {
    std::lock_guard lock(mutex_);
    require_running();
    Task& task = task_of(request.task);
    if (sessions_.contains(request.session_id)) {
        throw EngineFailure(-EEXIST, "session " + std::to_string(request.session_id) + " is attached already");
    }
    const uint32_t index = free_index();
    const SessionPlace place{request.session_id, index,        request.daemon_epoch,
                             request.c_fd,       request.d_fd, request.doorbell_fd,
                             request.socket_fd};
    auto session = std::make_unique<Session>(task, place, request.adopt);
    std::string refused;
    session->reach(*device_, refused);
    if (!simulated_) {
        loop_->robust().map(index, session->d_fd.get());
    }
    Command command{.kind = CommandKind::attach, .session = session.get()};
    by_index_[index] = session.get();
    sessions_.emplace(request.session_id, std::move(session));
    ++task.sessions;
    send(command);
    return refused;
}

void Engine::set_wakeup(uint64_t session_id, int doorbell_fd, int socket_fd) {
    std::lock_guard lock(mutex_);
    require_running();
    Command command{.kind = CommandKind::set_wakeup, .session = &session_of(session_id)};
    command.doorbell = Descriptor::duplicate(doorbell_fd);
    command.socket = Descriptor::duplicate(socket_fd);
    send(command);
}

void Engine::detach(uint64_t session_id, int32_t code) {
    std::lock_guard lock(mutex_);
    require_running();
    Command command{.kind = CommandKind::detach, .session = &session_of(session_id)};
    command.code = code;
    send(command);
}

void Engine::set_spinning(Spinning mode) {
    std::lock_guard lock(mutex_);
    require_running();
    Command command{.kind = CommandKind::set_spinning};
    command.spinning = mode;
    send(command);
}

std::vector<EventRecord> Engine::poll_events() {
    std::lock_guard lock(mutex_);
    std::vector<EventRecord> events;
    loop_->events().clear_fd();
    EventRecord event;
    while (loop_->events().pop(event)) {
        events.push_back(event);
    }
    uint32_t index;
    int32_t code;
    while (loop_->pop_detached(index, code)) {
        if (!by_index_[index]) {
            continue;  // it left while the engine stopped, and was forgotten with the others
        }
        Session& session = *by_index_[index];
        events.push_back({EventKind::detached, code, device_->now_ns(), session.id, session.task.id, {}});
        --session.task.sessions;
        by_index_[index] = nullptr;
        sessions_.erase(session.id);
        if (!simulated_) {
            loop_->robust().unmap(index);
        }
    }
    return events;
}

Snapshot Engine::snapshot() {
    std::lock_guard lock(mutex_);
    Snapshot snapshot{sync::copy_relaxed(loop_->counters()), loop_->events().dropped(), {}, {}};
    for (const auto& [id, task] : tasks_) {
        snapshot.tasks.push_back(
            {id, task->spec.name, task->spec.real_time, task->sessions, sync::copy_relaxed(task->counters)});
    }
    for (const auto& [id, session] : sessions_) {
        snapshot.sessions.push_back({id, session->task.id, sync::load_relaxed(session->hot->verdict),
                                     session->c.locked() && session->d.locked(),
                                     sync::copy_relaxed(session->hot->stats)});
    }
    return snapshot;
}

// ---------------------------------------------------------------- simulated time

SimulatedDevice& Engine::simulation() const {
    if (!simulated_) {
        throw EngineFailure(-EOPNOTSUPP, "time passes by itself on device '" + device_->info().name + "'");
    }
    return *simulated_;
}

std::vector<uint64_t> Engine::advance(uint64_t ns) {
    std::lock_guard lock(mutex_);
    SimulatedDevice& device = simulation();
    require_running();
    const uint64_t target = device.now_ns() + ns;
    std::vector<uint64_t> turns;
    for (;;) {
        loop_->collect_doorbells();
        for (bool asleep = false; !asleep;) {
            const uint64_t begin_ns = monotonic_ns();
            asleep = !loop_->turn() && loop_->ready_to_sleep();
            turns.push_back(monotonic_ns() - begin_ns);
        }
        if (device.now_ns() >= target) {
            return turns;
        }
        const uint64_t next = std::min({device.next_event_ns(), loop_->next_timer_ns(), target});
        device.advance_to(std::max(next, device.now_ns() + 1));
    }
}

std::vector<TraceRecord> Engine::take_trace() {
    std::lock_guard lock(mutex_);
    return simulation().take_trace();
}

}  // namespace reef
