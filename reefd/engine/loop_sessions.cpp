// SPDX-License-Identifier: Apache-2.0
// The engine thread's dealings with single sessions: they come, ring, announce, break, and go.
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "loop.hpp"
#include "sigbus.hpp"
#include "sync.hpp"

namespace reef {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;
constexpr uint64_t kRingWindowNs = kSecond / 10;
constexpr uint32_t kIdleRings = 200;      // doorbells without an entry that are forgiven in a window
constexpr uint64_t kPenaltyNs = kSecond;  // how long a session that rang too often is polled by timer

}  // namespace

bool Loop::take_commands(uint64_t now_ns) {
    bool any = false;
    Command* command;
    while (commands_.pop(command)) {
        any = true;
        switch (command->kind) {
        case CommandKind::attach:
            attach(*command->session, now_ns);
            break;
        case CommandKind::set_wakeup:
            set_wakeup(*command->session, *command);
            break;
        case CommandKind::detach:
            detach(*command->session, command->code, now_ns);
            break;
        case CommandKind::set_spinning:
            set_spinning(command->spinning);
            break;
        case CommandKind::stop:
            stopping_ = true;
            keep_sessions_ = command->keep_sessions;
            stop_deadline_ns_ = now_ns + command->grace_ns;
            break;
        }
        command->taken.store(1, std::memory_order_release);
        command->taken.notify_one();
    }
    return any;
}

void Loop::completed(Request& request, int32_t status, uint64_t now_ns) {
    if (status == 0 && request.task->spec.payload_crc) {
        status = check_payload(context_, request, now_ns);
    }
    complete(request, status, now_ns);
    if (request.task->spec.real_time && (status == 0 || status == -ETIME)) {
        if (request.start_ns != 0) {
            ladder_.observe(*request.task, Latency::queueing, request.start_ns - request.accept_ns, now_ns);
            ladder_.observe(*request.task, Latency::execution, now_ns - request.start_ns, now_ns);
        }
        ladder_.observe(*request.task, Latency::end_to_end, now_ns - request.accept_ns, now_ns);
    }
    if (stopping_) {
        (status == -ESHUTDOWN ? stop_counts_.failed : stop_counts_.finished)++;
    }
}

void Loop::vacated(Task& task, uint64_t ns, uint64_t now_ns) {
    task.counters.preemption.record(ns);
    ladder_.observe(task, Latency::preemption, ns, now_ns);
}

// ---------------------------------------------------------------- coming and going

void Loop::attach(Session& session, uint64_t now_ns) {
    sessions_[session.index] = &session;
    session.attached = true;
    session.idle_since_ns = now_ns;
    replay(context_, session, now_ns);
    if (session.verdict != 0) {
        freeze(context_, session, session.verdict, now_ns);
    } else {
        open_doorbell(session);
        watch(session, session.doorbell ? Watch::polled : Watch::timer);
    }
    if (options_.own_thread) {
        robust_.publish(session.index);
    } else {
        sync::store_release(session.hot->liveness, static_cast<uint32_t>(syscall(SYS_gettid)));
    }
    sync::store_release(session.hot->daemon_epoch, session.daemon_epoch);  // SYNC POINT daemon-epoch
    wake(session);
    if (session.adopted) {
        const AdoptionReport& report = session.adoption;
        events_.push({EventKind::adopted,
                      session.verdict,
                      now_ns,
                      session.id,
                      session.task.id,
                      {report.replayed, report.posted, report.skipped, report.rejected}});
    }
}

void Loop::set_wakeup(Session& session, Command& command) {
    close_doorbell(session);
    std::swap(session.doorbell, command.doorbell);
    std::swap(session.socket, command.socket);
    session.penalty_until_ns = 0;
    if (!session.frozen) {
        open_doorbell(session);
        watch(session, session.doorbell ? Watch::polled : Watch::timer);
    }
    wake(session);
}

void Loop::detach(Session& session, int32_t code, uint64_t now_ns) {
    if (session.leaving) {
        return;
    }
    session.leaving = true;
    session.leaving_code = code;
    unwatch(session);
    freeze(context_, session, code, now_ns);
    leaving_.push_back(session);
}

// Once nothing of a session is on the device it goes back to the control plane's thread, which unmaps it.
void Loop::release_leaving() {
    for (Session* session = leaving_.front(); session;) {
        Session* next = Sessions::next(*session);
        if (session->outstanding == 0) {
            leaving_.remove(*session);
            session->attached = false;
            sessions_[session->index] = nullptr;
            if (options_.own_thread) {
                robust_.withdraw(session->index);
            } else {
                sync::store_release(session->hot->liveness, 0u);
            }
            detached_.push({session->index, session->leaving_code});
            events_.notify();
        }
        session = next;
    }
}

// ---------------------------------------------------------------- watching

Loop::Sessions* Loop::list_of(const Session& session) {
    switch (session.watch) {
    case Watch::polled:
        return session.task.spec.real_time ? &real_time_ : &best_effort_;
    case Watch::timer:
        return &timed_;
    default:
        return nullptr;
    }
}

void Loop::watch(Session& session, Watch how) {
    if (Sessions* list = list_of(session)) {
        list->remove(session);
    }
    session.watch = how;
    if (how != Watch::doorbell) {
        sync::store_relaxed(session.hot->need_wakeup, 0u);
    }
    if (Sessions* list = list_of(session)) {
        list->push_back(session);
    }
}

void Loop::unwatch(Session& session) {
    watch(session, Watch::none);
    close_doorbell(session);
}

void Loop::open_doorbell(Session& session) {
    if (session.doorbell && !session.doorbell_open) {
        epoll_event event{.events = EPOLLIN | EPOLLET, .data = {.u64 = session.index}};
        epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, session.doorbell.get(), &event);
        session.doorbell_open = true;
    }
}

void Loop::close_doorbell(Session& session) {
    if (session.doorbell_open) {
        epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, session.doorbell.get(), nullptr);
        session.doorbell_open = false;
    }
}

// An honest client rings at most once for each entry or announcement, and serve() takes those off the count again.
void Loop::rang(Session& session, uint64_t now_ns) {
    sync::add_relaxed<uint64_t>(counters_.doorbells, 1);
    if (now_ns - session.ring_window_ns > kRingWindowNs) {
        session.ring_window_ns = now_ns;
        session.idle_rings = 0;
    }
    if (++session.idle_rings > kIdleRings) {
        session.penalty_until_ns = now_ns + kPenaltyNs;
        session.idle_rings = 0;
        if (session.watch != Watch::none) {
            close_doorbell(session);
            watch(session, Watch::timer);
            events_.push({EventKind::flooding, 0, now_ns, session.id, session.task.id, {kIdleRings}});
        }
    } else if (session.watch == Watch::doorbell) {
        session.idle_since_ns = now_ns;
        watch(session, Watch::polled);
    }
}

uint32_t Loop::serve(Session& session, uint32_t budget, uint64_t now_ns) {
    const uint64_t accepted = session.stats.accepted;
    const uint32_t taken = consume(context_, session, budget, now_ns);
    taken_ += session.task.spec.real_time ? 0 : taken;
    if (session.frozen && session.watch != Watch::none) {
        unwatch(session);  // quarantined: nothing it does is looked at any more
    }
    if (taken != 0) {
        session.idle_since_ns = now_ns;
        session.idle_rings -= std::min(session.idle_rings, taken);
        if (session.task.spec.real_time && session.stats.accepted != accepted) {
            scheduler_.end_announcement(session.announcement, now_ns);
        }
    }
    return taken;
}

bool Loop::hear_announcement(Session& session, uint64_t now_ns) {
    const uint32_t word = sync::load_acquire(session.client->announce);
    if (word == session.announced) {
        return false;
    }
    session.announced = word;
    scheduler_.end_announcement(session.announcement, now_ns);  // an earlier one that is still in force ends here
    session.idle_rings -= std::min(session.idle_rings, 1u);
    if (!has_entries(session)) {
        scheduler_.announce(session.announcement, session.task, now_ns);
    }
    return true;
}

void Loop::look_for_faults(uint64_t now_ns) {
    faults_seen_ = sigbus::faults();
    for (Session* session : sessions_) {
        if (session && !session->fault_seen && session->faulted.load(std::memory_order_acquire) != 0) {
            session->fault_seen = true;
            if (!session->frozen) {
                quarantine(context_, *session, Violation::truncated, 0, 0, 0, now_ns);
                unwatch(*session);
            }
        }
    }
}

// The device failed. Where a single request was on it, that one is to blame: the next daemon does not run it again.
// Several are under suspicion, and one that is there a second time is not run a third.
void Loop::accuse() {
    Request* guilty = nullptr;
    uint32_t suspects = 0;
    for (Session* session : sessions_) {
        if (!session) {
            continue;
        }
        for (Request& request : session->requests) {
            if (request.phase == Phase::started && (request.in_flight != 0 || request.task->spec.real_time)) {
                guilty = &request;
                ++suspects;
                sync::add_relaxed(session->slots[request.slot].crashes, 1u);
            }
        }
    }
    if (suspects == 1) {
        blame(*guilty);
    }
}

}  // namespace reef
