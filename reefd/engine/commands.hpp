// SPDX-License-Identifier: Apache-2.0
// Commands from the control plane to the engine thread. The caller owns the record, waits until it is taken, and gives
// only one at a time, so that the queue needs one producer, no lock and no allocation.
#pragma once
#include <atomic>
#include <cstdint>

#include "session.hpp"

namespace reef {

enum class Spinning : uint8_t { automatic, always, never };

enum class CommandKind : uint8_t { attach, set_wakeup, detach, set_spinning, stop };

struct Command {
    CommandKind kind;
    Session* session = nullptr;
    Descriptor doorbell{};  // set_wakeup: swapped with the session's; the caller closes the old ones
    Descriptor socket{};
    int32_t code = 0;                         // detach
    Spinning spinning = Spinning::automatic;  // set_spinning
    uint64_t grace_ns = 0;                    // stop
    bool keep_sessions = false;               // stop
    std::atomic<uint32_t> taken{0};
};

}  // namespace reef
