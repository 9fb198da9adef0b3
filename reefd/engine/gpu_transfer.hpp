// SPDX-License-Identifier: Apache-2.0
// Tensors of best-effort requests on a copy engine, one direction of them: in pieces on a stream of their own, few in flight,
// requests in turn. No driver call tells what has landed: behind each piece its number is written to a word of the host.
#pragma once
#include <array>
#include <memory>

#include "driver.hpp"
#include "intrusive.hpp"

namespace reef {

class GpuContext;

// All inputs or all outputs of one request.
struct GpuTransfer {
    GpuContext* context = nullptr;
    size_t bytes = 0;
    size_t issued = 0;    // of these, whose copies were issued
    uint64_t mark = 0;    // of the last piece
    bool urgent = false;  // goes before those that are not, and also while they are held
    bool open = false;    // begun, and neither reported to have landed nor dropped
    Link<GpuTransfer> link;

    bool whole() const { return issued == bytes; }
};

class GpuTransfers {
public:
    enum class Direction : uint8_t { to_device, to_host };
    // Where landed pieces are counted: a word of the device, for drivers that cannot write one in stream order, and the
    // host's, as both see it.
    struct Words {
        void* count;
        void* shown;
        const uint32_t* word;
    };

    GpuTransfers(std::shared_ptr<const Driver> driver, Direction direction, int least, int greatest,
                 const Words& words);
    ~GpuTransfers();
    GpuTransfers(const GpuTransfers&) = delete;
    GpuTransfers& operator=(const GpuTransfers&) = delete;

    void begin(GpuTransfer& transfer);
    // True: all of it is there, also in memory that the device does not reach.
    bool landed(GpuTransfer& transfer);
    // No further piece begins, and none that lands goes on to the client's memory. True: none is in flight.
    bool drop(GpuTransfer& transfer);
    // Issues the next pieces; the driver's status.
    int poll(bool urgent_only);

    bool open() const { return open_ != 0; }
    bool in_flight() const { return landed() != issued_; }
    DriverStream* stream() const { return stream_; }

private:
    static constexpr uint32_t kInFlight = 2;
    struct Piece {
        GpuTransfer* transfer;
        size_t at;
        size_t bytes;
    };

    // The mark of the last piece that landed.
    uint64_t landed() const {
        return issued_ - (static_cast<uint32_t>(issued_) - __atomic_load_n(words_.word, __ATOMIC_ACQUIRE));
    }
    void collect();
    void close(GpuTransfer& transfer);
    int issue(GpuTransfer& transfer);

    const std::shared_ptr<const Driver> driver_;
    const Direction direction_;
    const Words words_;
    DriverStream* stream_ = nullptr;
    List<GpuTransfer, &GpuTransfer::link> waiting_;  // have pieces left to issue
    std::array<Piece, kInFlight> pieces_{};          // issued and not collected, by number
    uint64_t issued_ = 0;
    uint64_t collected_ = 0;  // of the landed ones: went on to the client where the device does not reach
    uint32_t open_ = 0;
};

}  // namespace reef
