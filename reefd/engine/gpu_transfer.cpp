// SPDX-License-Identifier: Apache-2.0
#include "gpu_transfer.hpp"

#include <algorithm>

#include "gpu_context.hpp"

namespace reef {
namespace {

// A device has one engine for each direction, and it copies what comes first: 33 GB/s from the host on an H200. So a real-time
// input waits behind at most two pieces of best-effort inputs, 2 x 128 KiB / 33 GB/s = 8 us, where it would wait behind
// whole ones (15 of 600 KB: 270 us; one of 32 pictures, 19 MB: 580 us), and real-time outputs share the bus with at most
// two pieces of best-effort ones. Two keep the engine busy while the thread that issues them turns. A staged piece is
// copied by that thread, before it goes or after it came, at about 10 GB/s: 64 KiB take 6 us of its turn.
constexpr size_t kPieceBytes = 128 << 10, kStagedPieceBytes = 64 << 10;

}  // namespace

GpuTransfers::GpuTransfers(std::shared_ptr<const Driver> driver, Direction direction, int least, int greatest,
                           const Words& words)
    : driver_(std::move(driver)), direction_(direction), words_(words) {
    // Where the driver cannot write the word behind a piece, a kernel does, which must not wait for best-effort blocks.
    driver_->check(driver_->make_stream(&stream_, driver_->write_words ? least : greatest), "making a stream");
}

GpuTransfers::~GpuTransfers() { driver_->destroy_stream(stream_); }

void GpuTransfers::begin(GpuTransfer& transfer) {
    transfer.open = true;
    open_++;
    transfer.urgent ? waiting_.push_front(transfer) : waiting_.push_back(transfer);
}

void GpuTransfers::close(GpuTransfer& transfer) {
    open_ -= transfer.open;
    transfer.open = false;
}

bool GpuTransfers::landed(GpuTransfer& transfer) {
    if (!transfer.whole() || landed() < transfer.mark)
        return false;
    collect();
    close(transfer);
    return true;
}

bool GpuTransfers::drop(GpuTransfer& transfer) {
    if (decltype(waiting_)::contains(transfer))
        waiting_.remove(transfer);
    close(transfer);
    collect();  // what is still noted of it must not outlive the context
    return landed() >= transfer.mark;
}

void GpuTransfers::collect() {
    for (const uint64_t landed_now = landed(); collected_ != landed_now;) {
        const Piece& piece = pieces_[++collected_ % kInFlight];
        if (direction_ == Direction::to_host && piece.transfer->open)
            piece.transfer->context->pass_on(piece.at, piece.bytes);
    }
}

int GpuTransfers::poll(bool urgent_only) {
    int status = 0;
    // As many and no more, however fast they land: this is one turn of a thread that real-time requests wait for.
    for (uint32_t i = 0; i < kInFlight && status == 0 && !waiting_.empty(); i++) {
        if (urgent_only && !waiting_.front()->urgent)
            break;
        collect();
        if (issued_ - collected_ == kInFlight)
            break;
        GpuTransfer& transfer = *waiting_.front();
        status = issue(transfer);
        waiting_.remove(transfer);
        if (!transfer.whole())
            transfer.urgent ? waiting_.push_front(transfer) : waiting_.push_back(transfer);
    }
    return status;
}

int GpuTransfers::issue(GpuTransfer& transfer) {
    GpuContext& context = *transfer.context;
    const size_t at = transfer.issued;
    const size_t bytes = std::min(context.staged ? kStagedPieceBytes : kPieceBytes, transfer.bytes - at);
    transfer.issued += bytes;
    transfer.mark = ++issued_;
    pieces_[issued_ % kInFlight] = {&transfer, at, bytes};
    int status =
        direction_ == Direction::to_device ? context.copy_in(at, bytes, stream_) : context.copy_out(at, bytes, stream_);
    const DriverWord shown{words_.shown, static_cast<uint32_t>(issued_)};
    if (status == 0 && driver_->write_words)
        status = driver_->write_words(stream_, &shown, 1);
    else if (status == 0)
        status = context.launch_end(stream_, words_.count, words_.shown, 0, false);
    return status;
}

}  // namespace reef
