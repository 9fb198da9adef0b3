// SPDX-License-Identifier: Apache-2.0
// Every entry is copied once and the copy is checked; what fails a check costs the client its session and nobody else
// anything. The order of stores in accept() and complete() is what makes death at any instruction safe: see session.cpp.
#include "ring.hpp"

#include <linux/futex.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "crc32c.hpp"
#include "scheduler.hpp"
#include "sync.hpp"

namespace reef {
namespace {

// Best-effort inputs that are checked in one turn; an entry that goes beyond it is the last. At 20 GB/s, 13 us.
constexpr uint64_t kPayloadBytes = 256 * 1024;

uint32_t crc_of(const std::vector<ModelTensor>& tensors, const std::byte* area) {
    uint32_t crc = 0;
    for (const ModelTensor& tensor : tensors) {
        crc = crc32c(area + tensor.offset, tensor.bytes, crc);
    }
    return crc;
}

// libreef waits in one thread of a session. Each one woken costs the engine about a microsecond, so a client that sleeps
// on the word in thousands of threads wakes the others itself.
constexpr int kMostWoken = 4;

// Generation and state share an aligned word so that both change in one store.
void store_generation_and_state(reef_d_slot& slot, uint32_t generation, uint32_t state) {
    static_assert(offsetof(reef_d_slot, state) == 0 && offsetof(reef_d_slot, generation) == 4);
    const uint64_t both = uint64_t{generation} << 32 | state;
    sync::store_release(*reinterpret_cast<uint64_t*>(&slot), both);
}

uint32_t final_state(int32_t status) {
    switch (status) {
    case -ECANCELED:
        return REEF_SLOT_CANCELLED;
    case -ETIME:
        return REEF_SLOT_EXPIRED;
    case 0:
        return REEF_SLOT_DONE;
    default:
        return REEF_SLOT_REJECTED;
    }
}

void publish_stats(Session& session) {
    const auto* from = reinterpret_cast<const uint64_t*>(&session.stats);
    auto* to = reinterpret_cast<uint64_t*>(&session.hot->stats);
    for (size_t i = 0; i < sizeof(reef_stats) / sizeof(uint64_t); ++i) {
        sync::store_relaxed(to[i], from[i]);
    }
}

void run_echo(Request& request, uint64_t now_ns, const Device& clock) {
    mark_running(request, now_ns);
    const uint64_t bytes = request.model->inputs[0].bytes;
    uint64_t words[2];
    std::memcpy(&words[0], request.binding.inputs, 8);
    std::memcpy(&words[1], request.binding.inputs + bytes - 8, 8);
    std::memcpy(request.binding.outputs, words, sizeof words);
    complete(request, 0, clock.now_ns());
}

void enqueue(RingContext& context, Request& request, uint64_t now_ns) {
    request.phase = Phase::waiting;
    request.arrival = context.arrivals++;
    request.session->unstarted.push_back(request);
    ++request.session->outstanding;
    if (request.task->spec.payload_crc) {
        if (const int32_t status = check_payload(context, request, now_ns); status != 0) {
            complete(request, status, now_ns);
            return;
        }
    }
    if (request.model->model) {
        context.scheduler.submit(request);
    } else {
        run_echo(request, now_ns, context.device);
    }
}

void cancel(RingContext& context, Session& session, const reef_sqe& sqe, uint64_t now_ns) {
    Request& request = session.requests[sqe.slot];
    int32_t verdict = -ENOENT;
    if (request.generation == sqe.generation && request.generation != 0) {
        verdict = request.phase == Phase::idle ? -EALREADY : context.scheduler.cancel(request, -ECANCELED, now_ns);
    }
    const uint64_t word = uint64_t{static_cast<uint32_t>(verdict)} << 32 | static_cast<uint32_t>(sqe.sequence);
    sync::store_release(session.slots[sqe.slot].cancel_verdict, word);  // SYNC POINT cancel-verdict
}

void accept(RingContext& context, Session& session, const reef_sqe& sqe, uint64_t now_ns) {
    Request& request = session.requests[sqe.slot];
    reef_d_slot& slot = session.slots[sqe.slot];
    slot.attempts = 0;
    slot.crashes = 0;
    slot.accept_ns = now_ns;
    slot.start_ns = 0;
    slot.sqe = sqe;
    store_generation_and_state(slot, sqe.generation, REEF_SLOT_ACCEPTED);
    sync::store_release(session.hot->sq_head, ++session.sq_head);  // SYNC POINT sq-head

    request.model = &session.task.models[sqe.model];
    request.generation = sqe.generation;
    request.sequence = sqe.sequence;
    request.user_data = sqe.user_data;
    request.payload_crc = sqe.payload_crc;
    request.accept_ns = now_ns;
    request.start_ns = 0;
    request.preemptions = 0;
    request.replayed = false;
    request.alone = false;
    request.ending = 0;
    const uint64_t relative = session.task.spec.deadline_ns;
    request.deadline_ns = sqe.deadline_ns ? sqe.deadline_ns : relative ? now_ns + relative : 0;
    session.stats.accepted++;
    sync::add_relaxed<uint64_t>(session.task.counters.accepted, 1);

    // LATEST: this request has to wait, so the oldest one that did not start gives up its place.
    if ((sqe.flags & REEF_SQE_LATEST) && !session.unstarted.empty()) {
        context.scheduler.dispatch(now_ns);
        if (Request* oldest = session.unstarted.front()) {
            context.scheduler.cancel(*oldest, -ECANCELED, now_ns);
        }
    }
    enqueue(context, request, now_ns);
}

struct Verdict {
    bool good;
    Violation violation;
    uint64_t found;
    uint64_t expected;
};
constexpr Verdict kGood{true, {}, 0, 0};

Verdict check(const Session& session, const reef_sqe& sqe, uint32_t index, uint64_t cq_head) {
    auto bad = [](Violation violation, uint64_t found = 0, uint64_t expected = 0) {
        return Verdict{false, violation, found, expected};
    };
    if (sqe.opcode != REEF_OP_INFER && sqe.opcode != REEF_OP_CANCEL) {
        return bad(Violation::opcode, sqe.opcode);
    }
    const uint32_t allowed = sqe.opcode == REEF_OP_INFER ? REEF_SQE_FLAGS : REEF_SQE_CRC;
    if (sqe.flags & ~allowed) {
        return bad(Violation::flags, sqe.flags);
    }
    const uint32_t with_payload = sqe.flags & REEF_SQE_PAYLOAD_CRC;
    if (sqe.reserved != 0 || (sqe.payload_crc != 0 && with_payload == 0)) {
        return bad(Violation::reserved);
    }
    if (static_cast<uint32_t>(sqe.sequence) != index) {
        return bad(Violation::sequence, sqe.sequence, index);
    }
    if (sqe.flags & REEF_SQE_CRC) {
        if (sqe.crc != crc_before_tail(sqe)) {
            return bad(Violation::crc);
        }
    } else if (session.task.spec.crc) {
        return bad(Violation::crc_missing);
    }
    if (sqe.slot >= session.requests.size()) {
        return bad(Violation::slot, sqe.slot, session.requests.size());
    }
    if (sqe.opcode == REEF_OP_CANCEL) {
        return kGood;
    }
    if ((with_payload != 0) != session.task.spec.payload_crc) {
        return bad(Violation::payload_crc, with_payload);
    }
    if (sqe.model >= session.task.models.size()) {
        return bad(Violation::model, sqe.model, session.task.models.size());
    }
    const Request& request = session.requests[sqe.slot];
    if (request.phase != Phase::idle) {
        return bad(Violation::slot_in_flight, sqe.slot);
    }
    if (sqe.generation != request.generation + 1) {
        return bad(Violation::generation, sqe.generation, request.generation + 1);
    }
    // This also keeps the CQ from overflowing: no more completions are outstanding than there are slots.
    if (request.generation != 0 && request.cq_index >= cq_head) {
        return bad(Violation::not_consumed, sqe.slot);
    }
    return kGood;
}

}  // namespace

bool has_entries(const Session& session) {
    return sync::load_acquire(session.client->sq_tail) != session.sq_head;  // SYNC POINT sq-tail
}

uint32_t consume(RingContext& context, Session& session, uint32_t budget, uint64_t now_ns) {
    if (session.frozen) {
        return 0;
    }
    const uint32_t tail = sync::load_acquire(session.client->sq_tail);  // SYNC POINT sq-tail
    const uint32_t count = tail - session.sq_head;
    if (count == 0) {
        return 0;
    }
    if (count > session.entries) {
        quarantine(context, session, Violation::sq_tail, tail, session.sq_head, session.entries, now_ns);
        return 0;
    }
    uint32_t taken = 0;
    const bool bounded = session.task.spec.payload_crc && !session.task.spec.real_time;
    for (; taken < std::min(count, budget) && !session.frozen; ++taken) {
        if (bounded && context.payload_bytes >= kPayloadBytes) {
            break;
        }
        const auto posted = static_cast<uint32_t>(session.cq_tail);
        const uint32_t head = sync::load_acquire(session.client->cq_head);  // SYNC POINT cq-head
        if (posted - head > session.entries) {
            quarantine(context, session, Violation::cq_head, head, posted, session.entries, now_ns);
            break;
        }
        reef_sqe sqe;
        sync::copy_once(sqe, session.sq[session.sq_head & (session.entries - 1)]);
        const Verdict verdict = check(session, sqe, session.sq_head, session.cq_tail - (posted - head));
        if (!verdict.good) {
            quarantine(context, session, verdict.violation, session.sq_head, verdict.found, verdict.expected, now_ns);
            break;
        }
        if (sqe.opcode == REEF_OP_INFER) {
            accept(context, session, sqe, now_ns);
        } else {
            cancel(context, session, sqe, now_ns);
            sync::store_release(session.hot->sq_head, ++session.sq_head);  // SYNC POINT sq-head
            wake(session);
        }
    }
    return taken;
}

void replay(RingContext& context, Session& session, uint64_t now_ns) {
    for (Request* request : session.replays) {
        reef_d_slot& slot = session.slots[request->slot];
        if (request->ending != 0 || session.verdict != 0) {
            ++session.outstanding;
            request->phase = Phase::waiting;
            session.unstarted.push_back(*request);
            const int32_t code = request->ending != 0 ? request->ending : session.verdict;
            if (request->ending != 0) {
                context.events.push({EventKind::rejected,
                                     code,
                                     now_ns,
                                     session.id,
                                     session.task.id,
                                     {request->slot, request->generation, slot.attempts, slot.crashes}});
                ++session.adoption.rejected;
            }
            request->ending = 0;
            complete(*request, code, now_ns);
            continue;
        }
        store_generation_and_state(slot, slot.generation, REEF_SLOT_ACCEPTED);
        sync::add_relaxed<uint64_t>(session.task.counters.replayed, 1);
        ++session.adoption.replayed;
        enqueue(context, *request, now_ns);
    }
    session.replays.clear();
}

void mark_running(Request& request, uint64_t now_ns) {
    Session& session = *request.session;
    reef_d_slot& slot = session.slots[request.slot];
    request.start_ns = now_ns;
    request.phase = Phase::started;
    session.unstarted.remove(request);
    slot.attempts++;
    slot.start_ns = now_ns;
    sync::store_release(slot.state, static_cast<uint32_t>(REEF_SLOT_RUNNING));
}

int32_t check_payload(RingContext& context, Request& request, uint64_t now_ns) {
    Session& session = *request.session;
    context.payload_bytes += request.model->input_area;
    const uint32_t found = crc_of(request.model->inputs, request.binding.inputs);
    if (found == request.payload_crc) {
        return 0;
    }
    session.stats.damaged++;
    sync::add_relaxed<uint64_t>(session.task.counters.damaged, 1);
    context.events.push({EventKind::damaged,
                         -EILSEQ,
                         now_ns,
                         session.id,
                         session.task.id,
                         {request.slot, request.generation, found, request.payload_crc}});
    return -EILSEQ;
}

void blame(const Request& request) { sync::store_release(request.session->slots[request.slot].crashes, kMaxCrashes); }

void complete(Request& request, int32_t status, uint64_t now_ns) {
    Session& session = *request.session;
    TaskCounters& counters = session.task.counters;
    reef_d_slot& slot = session.slots[request.slot];
    const bool late = status == 0 && request.deadline_ns != 0 && now_ns > request.deadline_ns;
    if (List<Request, &Request::session_link>::contains(request)) {
        session.unstarted.remove(request);
    }

    reef_cqe cqe{};
    cqe.user_data = request.user_data;
    cqe.slot = request.slot;
    cqe.generation = request.generation;
    cqe.sequence = request.sequence;
    cqe.status = status;
    cqe.flags = static_cast<uint16_t>((late ? REEF_CQE_LATE : 0) | (request.replayed ? REEF_CQE_REPLAYED : 0));
    cqe.preemptions = request.preemptions;
    cqe.accept_ns = request.accept_ns;
    cqe.start_ns = request.start_ns;
    cqe.end_ns = now_ns;
    if (status == 0 && session.task.spec.payload_crc) {
        cqe.flags |= REEF_CQE_PAYLOAD_CRC;
        cqe.payload_crc = crc_of(request.model->outputs, request.binding.outputs);
    }
    cqe.crc = crc_before_tail(cqe);
    const auto index = static_cast<uint32_t>(session.cq_tail);
    session.cq[index & (session.entries - 1)] = cqe;
    sync::store_release(slot.cq_index, index);
    sync::store_release(slot.state, final_state(status));
    request.phase = Phase::idle;
    request.alone = false;
    request.cq_index = session.cq_tail++;
    --session.outstanding;

    session.stats.completed++;
    session.stats.failed += status != 0;
    session.stats.late += late;
    session.stats.preempted += request.preemptions;
    if (request.start_ns != 0) {
        session.stats.queue_ns += request.start_ns - request.accept_ns;
        session.stats.execute_ns += now_ns - request.start_ns;
    }
    publish_stats(session);
    sync::store_release(session.hot->cq_tail, session.cq_tail);  // SYNC POINT cq-tail
    wake(session);

    sync::add_relaxed<uint64_t>(counters.completed, 1);
    sync::add_relaxed<uint64_t>(counters.failed, status != 0);
    sync::add_relaxed<uint64_t>(counters.late, late);
    sync::add_relaxed<uint64_t>(counters.expired, status == -ETIME);
    sync::add_relaxed<uint64_t>(counters.cancelled, status == -ECANCELED);
    sync::add_relaxed<uint64_t>(counters.preempted, request.preemptions);
    if (request.start_ns != 0) {
        counters.queueing.record(request.start_ns - request.accept_ns);
        counters.execution.record(now_ns - request.start_ns);
    }
    counters.end_to_end.record(now_ns - request.accept_ns);
}

void wake(Session& session) {
    sync::full_fence();  // SYNC POINT cq-waiting
    const uint32_t waiting = sync::load_relaxed(session.client->cq_waiting);
    if (waiting & REEF_WAIT_FUTEX) {
        syscall(SYS_futex, &session.hot->cq_tail, FUTEX_WAKE, kMostWoken, nullptr, nullptr, 0);
    }
    if ((waiting & REEF_WAIT_SOCKET) && session.socket) {
        const char byte = 0;
        send(session.socket.get(), &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

void freeze(RingContext& context, Session& session, int32_t code, uint64_t now_ns) {
    session.frozen = true;
    context.scheduler.end_announcement(session.announcement, now_ns);
    if (session.verdict == 0 && code != 0) {
        session.verdict = code;
        sync::store_release(session.hot->verdict, code);
    }
    const int32_t status = code != 0 ? code : -ECANCELED;
    for (Request& request : session.requests) {
        if (request.phase != Phase::idle) {
            context.scheduler.end(request, status, now_ns);
        }
    }
    wake(session);
}

void quarantine(RingContext& context, Session& session, Violation violation, uint64_t a, uint64_t b, uint64_t c,
                uint64_t now_ns) {
    if (session.faulted.load(std::memory_order_acquire) != 0) {
        violation = Violation::truncated;  // the zeros that stand in for the missing pages are not the client's words
    }
    context.events.push({EventKind::quarantine,
                         -EPROTO,
                         now_ns,
                         session.id,
                         session.task.id,
                         {static_cast<uint64_t>(violation), a, b, c}});
    freeze(context, session, -EPROTO, now_ns);
}

}  // namespace reef
