// SPDX-License-Identifier: Apache-2.0
// Tensors on their way to a simulated device, or from it: pieces that take a fixed time each, two in flight, contexts in
// turn. It keeps to what device.hpp says of fetch, deliver, drop and poll, and to nothing finer of any device.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <string>

#include "intrusive.hpp"

namespace reef {

// The pieces of one request in one direction.
struct SimulatedTransfer {
    const std::string* model = nullptr;
    uint32_t pieces = 0;
    uint32_t issued = 0;
    uint32_t landed = 0;
    bool urgent = false;  // goes on also while others are held
    bool open = false;    // begun, and neither reported to be there nor dropped
    Link<SimulatedTransfer> link;
};

class SimulatedTransfers {
public:
    static constexpr uint64_t kPieceNs = 10'000;

    void begin(SimulatedTransfer& transfer) {
        transfer.open = true;
        ++open_;
        queue(transfer);
    }
    bool there(SimulatedTransfer& transfer) {
        if (transfer.landed < transfer.pieces) {
            return false;
        }
        close(transfer);
        return true;
    }
    bool drop(SimulatedTransfer& transfer) {
        if (decltype(waiting_)::contains(transfer)) {
            waiting_.remove(transfer);
        }
        close(transfer);
        return transfer.landed == transfer.issued;
    }
    // `issuing` is told of each piece.
    template <class Issuing> void poll(bool hold, uint64_t now_ns, Issuing issuing) {
        while (!waiting_.empty() && count_ != flights_.size() && (!hold || waiting_.front()->urgent)) {
            SimulatedTransfer& transfer = *waiting_.front();
            waiting_.remove(transfer);
            issuing(transfer);
            ++transfer.issued;
            last_ns_ = std::max(last_ns_, now_ns) + kPieceNs;
            flights_[count_++] = {&transfer, last_ns_};
            if (transfer.issued != transfer.pieces) {
                queue(transfer);
            }
        }
    }
    uint64_t next_ns() const { return count_ != 0 ? flights_[0].lands_ns : UINT64_MAX; }
    void land(uint64_t now_ns) {
        while (count_ != 0 && flights_[0].lands_ns <= now_ns) {
            ++flights_[0].transfer->landed;
            flights_[0] = flights_[1];
            --count_;
        }
    }
    bool open() const { return open_ != 0; }
    bool in_flight() const { return count_ != 0; }

private:
    struct Flight {
        SimulatedTransfer* transfer;
        uint64_t lands_ns;
    };

    void queue(SimulatedTransfer& transfer) {
        transfer.urgent ? waiting_.push_front(transfer) : waiting_.push_back(transfer);
    }
    void close(SimulatedTransfer& transfer) {
        open_ -= transfer.open;
        transfer.open = false;
    }

    List<SimulatedTransfer, &SimulatedTransfer::link> waiting_;
    std::array<Flight, 2> flights_{};
    uint32_t count_ = 0;
    uint32_t open_ = 0;
    uint64_t last_ns_ = 0;
};

}  // namespace reef
