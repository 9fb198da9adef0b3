// SPDX-License-Identifier: Apache-2.0
// Making a session, and taking one over from a daemon that died.
//
// A predecessor may have died between any two of its stores. Its stores are in D in program order, and each has one of
// these meanings to us (ring.cpp makes them in this order; tests/model/adopt.pml checks it):
//   accept     sqe | {generation, state ACCEPTED} in one store | sq_head
//              Before the second: nothing happened, the entry is still at sq_head and is taken again. Before the third:
//              the entry at sq_head has the slot's generation and is skipped, once.
//   complete   CQE | cq_index | final state | cq_tail
//              Before the third: still RUNNING, it is run again and writes the same CQE entry. Before the fourth: a final
//              state whose cq_index is cq_tail; publishing cq_tail is all that is missing.
// Nothing in C is believed: the copy in D is what is replayed, and sq_tail goes through the checks of every turn.
#include "session.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "crc32c.hpp"
#include "failure.hpp"
#include "sigbus.hpp"
#include "sync.hpp"

namespace reef {
namespace {

bool is_final(uint32_t state) { return state >= REEF_SLOT_DONE && state <= REEF_SLOT_REJECTED; }

[[noreturn]] void damaged(uint32_t slot, const std::string& what) {
    throw EngineFailure(-EBADMSG, "region D: slot " + std::to_string(slot) + ": " + what);
}

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
}

Descriptor::~Descriptor() {
    if (fd_ >= 0) {
        close(fd_);
    }
}

Descriptor Descriptor::duplicate(int fd) {
    if (fd < 0) {
        return Descriptor();
    }
    const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0) {
        throw EngineFailure(-errno, "descriptor " + std::to_string(fd) + ": " + std::strerror(errno));
    }
    return Descriptor(copy);
}

Session::Session(Task& task_, const SessionPlace& place, bool adopted_)
    : id(place.id), index(place.index), daemon_epoch(place.daemon_epoch), task(task_),
      d_fd(Descriptor::duplicate(place.d_fd)), doorbell(Descriptor::duplicate(place.doorbell_fd)),
      socket(Descriptor::duplicate(place.socket_fd)), adopted(adopted_) {
    const Layout layout(task);
    const reef_header& header = layout.header;
    c = Mapping(place.c_fd, header.c_size, "region C");
    d = Mapping(place.d_fd, header.d_size, "region D");
    client = c.at<reef_c_hot>(0);
    sq = c.at<reef_sqe>(header.c_sq_offset);
    hot = d.at<reef_d_hot>(REEF_PAGE);
    cq = d.at<reef_cqe>(header.d_cq_offset);
    slots = d.at<reef_d_slot>(header.d_slots_offset);
    entries = header.entries;
    inputs_offset = header.c_inputs_offset;
    inputs_stride = header.c_inputs_stride;
    outputs_offset = header.d_outputs_offset;
    outputs_stride = header.d_outputs_stride;
    requests.resize(header.slots);
    for (uint32_t i = 0; i < header.slots; ++i) {
        requests[i].session = this;
        requests[i].task = &task;
        requests[i].slot = i;
        requests[i].priority = task.spec.priority;
        requests[i].binding = binding(i);
    }
    sigbus::install();
    guard_ = sigbus::guard(c.base(), c.size(), &faulted);
    if (guard_ < 0) {
        throw EngineFailure(-EMFILE, "no room in the table of guarded regions");
    }
    try {
        if (adopted) {
            check_header(d, layout, id);
            take_over();
        } else {
            write_header(d, layout, id);
        }
    } catch (...) {
        sigbus::release(guard_);
        throw;
    }
    announced = sync::load_relaxed(client->announce);
}

Session::~Session() {
    if (device_) {
        device_->forget(c.base());
        device_->forget(d.base());
    }
    sigbus::release(guard_);
}

void Session::reach(Device& device, std::string& refused) {
    if (!device.reach(c.base(), c.size(), refused)) {
        return;
    }
    if (!device.reach(d.base(), d.size(), refused)) {
        device.forget(c.base());
        return;
    }
    device_ = &device;
    for (Request& request : requests) {
        request.binding = binding(request.slot);
    }
}

void Session::take_over() {
    sq_head = hot->sq_head;
    cq_tail = hot->cq_tail;
    // The upper half is ours alone; it leaves room below for every index that a slot may remember.
    cq_tail += uint64_t{1} << 32;
    stats = hot->stats;
    verdict = hot->verdict;
    Request* missing = nullptr;

    for (Request& request : requests) {
        const reef_d_slot& slot = slots[request.slot];
        request.generation = slot.generation;
        if (slot.state > REEF_SLOT_REJECTED) {
            damaged(request.slot, "state " + std::to_string(slot.state));
        }
        if (slot.state == REEF_SLOT_FREE) {
            continue;
        }
        if (is_final(slot.state)) {
            // An index from long ago may have wrapped; the entry itself says whether it is the one that is missing.
            const auto distance = static_cast<uint32_t>(cq_tail) - slot.cq_index;
            const reef_cqe& cqe = cq[slot.cq_index & (entries - 1)];
            if (distance != 0) {
                request.cq_index = cq_tail - distance;
            } else if (cqe.slot == request.slot && cqe.generation == slot.generation &&
                       cqe.crc == crc_before_tail(cqe)) {
                if (missing) {
                    damaged(request.slot, "two completions for one index");
                }
                missing = &request;
                request.cq_index = cq_tail;
            }
            continue;
        }
        const reef_sqe& sqe = slot.sqe;
        if (sqe.opcode != REEF_OP_INFER || sqe.slot != request.slot || sqe.generation != slot.generation ||
            sqe.model >= task.models.size()) {
            damaged(request.slot, "the copy of its entry belongs elsewhere");
        }
        request.model = &task.models[sqe.model];
        request.sequence = sqe.sequence;
        request.user_data = sqe.user_data;
        request.payload_crc = sqe.payload_crc;
        request.accept_ns = slot.accept_ns;
        request.start_ns = slot.start_ns;
        request.deadline_ns = sqe.deadline_ns              ? sqe.deadline_ns
                              : task.spec.deadline_ns != 0 ? slot.accept_ns + task.spec.deadline_ns
                                                           : 0;
        request.replayed = slot.state == REEF_SLOT_RUNNING;
        request.alone = slot.attempts != 0;
        if (request.replayed && (slot.crashes >= kMaxCrashes || slot.attempts >= kMaxAttempts)) {
            request.ending = -EIO;
        }
        replays.push_back(&request);
    }
    std::sort(replays.begin(), replays.end(), [](const Request* a, const Request* b) {
        return a->accept_ns != b->accept_ns ? a->accept_ns < b->accept_ns : a->sequence < b->sequence;
    });

    // Everything was checked; from here on D is changed.
    if (missing) {
        ++cq_tail;
        sync::store_release(hot->cq_tail, cq_tail);  // SYNC POINT cq-tail
        adoption.posted = 1;
    }
    reef_sqe entry;
    sync::copy_once(entry, sq[sq_head & (entries - 1)]);
    const uint32_t tail = sync::load_acquire(client->sq_tail);  // SYNC POINT sq-tail
    if (tail != sq_head && entry.opcode == REEF_OP_INFER && entry.slot < requests.size() &&
        slots[entry.slot].state != REEF_SLOT_FREE && slots[entry.slot].generation == entry.generation &&
        slots[entry.slot].sqe.sequence == entry.sequence) {
        ++sq_head;
        sync::store_release(hot->sq_head, sq_head);  // SYNC POINT sq-head
        adoption.skipped = 1;
    }
}

}  // namespace reef
