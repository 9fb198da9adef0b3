// SPDX-License-Identifier: Apache-2.0
// The rings of one session, from the daemon's side: take submission entries, post completions. Engine thread only.
#pragma once
#include <cstdint>

#include "events.hpp"
#include "session.hpp"

namespace reef {

class Scheduler;

// What the rings need around them.
struct RingContext {
    Device& device;
    Scheduler& scheduler;
    EventRing& events;
    uint64_t arrivals = 0;       // order among all requests
    uint64_t payload_bytes = 0;  // of inputs that were checked in this turn
};

// Takes up to `budget` entries. Returns how many. A violation quarantines the session and ends the taking.
uint32_t consume(RingContext& context, Session& session, uint32_t budget, uint64_t now_ns);

// Whether the client published entries that were not taken.
bool has_entries(const Session& session);

// Hands the requests that a predecessor had accepted to the scheduler.
void replay(RingContext& context, Session& session, uint64_t now_ns);

// The one place where a request ends: CQE, index, final state, cq_tail, wake-up, counters. Exactly once for each.
void complete(Request& request, int32_t status, uint64_t now_ns);

// Of a task with payload_crc: 0, or -EILSEQ, an event and a count where the inputs are not what the client sent.
int32_t check_payload(RingContext& context, Request& request, uint64_t now_ns);

// D's record that a launch is about to happen. Before the launch, so that a successor knows.
void mark_running(Request& request, uint64_t now_ns);

// The device does not get on with this request: a successor answers -EIO and does not run it again.
void blame(const Request& request);

// Takes no more requests; those it has end with `code` as soon as the device has let go of them.
void freeze(RingContext& context, Session& session, int32_t code, uint64_t now_ns);

// freeze() with -EPROTO, an event, and the verdict where the client sees it.
void quarantine(RingContext& context, Session& session, Violation violation, uint64_t a, uint64_t b, uint64_t c,
                uint64_t now_ns);

// Wakes a client that sleeps on cq_tail, whether or not something was completed.
void wake(Session& session);

}  // namespace reef
