// SPDX-License-Identifier: Apache-2.0
// The words for events: made where they are read, never on the engine thread.
#include "events.hpp"

#include <cstdio>

#include "ladder.hpp"

namespace reef {
namespace {

std::string text(uint64_t value) { return std::to_string(value); }

std::string describe_violation(const std::array<uint64_t, 4>& v) {
    const std::string at = "entry " + text(v[1]) + ": ";
    switch (static_cast<Violation>(v[0])) {
    case Violation::sq_tail:
        return "sq_tail " + text(v[1]) + " is more than " + text(v[3]) + " entries ahead of sq_head " + text(v[2]);
    case Violation::cq_head:
        return "cq_head " + text(v[1]) + " is not within " + text(v[3]) + " entries behind cq_tail " + text(v[2]);
    case Violation::opcode:
        return at + "unknown opcode " + text(v[2]);
    case Violation::flags:
        return at + "reserved flags are set: " + text(v[2]);
    case Violation::reserved:
        return at + "reserved fields are not zero";
    case Violation::sequence:
        return at + "sequence " + text(v[2]) + " does not end in the entry's index";
    case Violation::crc_missing:
        return at + "no CRC, and the task requires one";
    case Violation::crc:
        return at + "the CRC is wrong";
    case Violation::payload_crc:
        return at + (v[2] != 0 ? "a CRC of its inputs, and the task wants none"
                               : "no CRC of its inputs, and the task requires one");
    case Violation::slot:
        return at + "slot " + text(v[2]) + " of " + text(v[3]);
    case Violation::model:
        return at + "model " + text(v[2]) + " of " + text(v[3]);
    case Violation::slot_in_flight:
        return at + "slot " + text(v[2]) + " has a request in flight";
    case Violation::generation:
        return at + "generation " + text(v[2]) + ", expected " + text(v[3]);
    case Violation::not_consumed:
        return at + "the last completion of slot " + text(v[2]) + " is not consumed";
    case Violation::truncated:
        return "region C was truncated or punched";
    }
    return "unknown violation " + text(v[0]);
}

std::string hexadecimal(uint64_t value) {
    std::array<char, 32> room;
    std::snprintf(room.data(), room.size(), "%08llx", static_cast<unsigned long long>(value));
    return room.data();
}

std::string milliseconds(uint64_t ns) {
    std::array<char, 32> room;
    std::snprintf(room.data(), room.size(), "%.3f ms", static_cast<double>(ns) / 1e6);
    return room.data();
}

std::string describe_bounds(const std::array<uint64_t, 4>& v) {
    const auto to = static_cast<Step>(v[0] >> 8 & 0xff);
    const std::string step = "step " + text(v[0] >> 8 & 0xff) + ", " + step_name(to);
    if ((v[0] & 0xff) > (v[0] >> 8 & 0xff)) {
        return "kept for " + milliseconds(v[1]) + ": back to " + step;
    }
    return std::string(kLatencyNames[v[0] >> 16 & 3]) + " took " + milliseconds(v[1]) + ", promised are " +
           milliseconds(v[2]) + " (broken " + text(v[3]) + " times): " + step;
}

}  // namespace

const char* event_name(EventKind kind) {
    switch (kind) {
    case EventKind::quarantine:
        return "quarantine";
    case EventKind::detached:
        return "detached";
    case EventKind::adopted:
        return "adopted";
    case EventKind::rejected:
        return "rejected";
    case EventKind::flooding:
        return "flooding";
    case EventKind::damaged:
        return "damaged";
    case EventKind::bounds:
        return "bounds";
    case EventKind::device_stuck:
        return "device_stuck";
    }
    return "unknown";
}

std::string describe(const EventRecord& event) {
    const auto& v = event.values;
    switch (event.kind) {
    case EventKind::quarantine:
        return describe_violation(v);
    case EventKind::detached:
        return "unmapped";
    case EventKind::adopted:
        return text(v[0]) + " requests replayed, " + text(v[1]) + " completions posted, " + text(v[2]) +
               " entries skipped, " + text(v[3]) + " requests rejected";
    case EventKind::rejected:
        return "slot " + text(v[0]) + ", generation " + text(v[1]) + ": the daemon died in it, " + text(v[3]) +
               " times by its fault, in " + text(v[2]) + " runs";
    case EventKind::flooding:
        return "rang " + text(v[0]) + " times without a request; polled by timer";
    case EventKind::damaged:
        return "slot " + text(v[0]) + ", generation " + text(v[1]) + ": the inputs have CRC " + hexadecimal(v[2]) +
               ", the client submitted " + hexadecimal(v[3]);
    case EventKind::bounds:
        return describe_bounds(v);
    case EventKind::device_stuck:
        if (v[0] == UINT64_MAX) {
            return std::string("the driver reports a fault: ") + reinterpret_cast<const char*>(v[1]) +
                   ": nothing of this process can run on the device any more";
        }
        return "queue " + text(v[0]) + ": kernel " + text(v[3]) + " of the request in slot " + text(v[2]) +
               " has finished no block for " + text(v[1]) + " ms";
    }
    return "";
}

}  // namespace reef
