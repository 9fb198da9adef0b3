// SPDX-License-Identifier: Apache-2.0
// What the engine thread tells the control plane: fixed records through a lock-free ring. A full ring drops the record
// and counts it; nothing that the control plane must not miss relies on it alone (see Loop's ring of detached sessions).
#pragma once
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <string>

#include "sync.hpp"

namespace reef {

// A queue with one producer and one consumer, in one process.
template <class T, uint32_t N> class Spsc {
    static_assert((N & (N - 1)) == 0, "a power of two");

public:
    bool push(const T& item) {
        const uint32_t tail = tail_.load(std::memory_order_relaxed);
        if (tail - head_.load(std::memory_order_acquire) == N) {
            return false;
        }
        items_[tail & (N - 1)] = item;
        tail_.store(tail + 1, std::memory_order_release);
        return true;
    }

    bool pop(T& item) {
        const uint32_t head = head_.load(std::memory_order_relaxed);
        if (head == tail_.load(std::memory_order_acquire)) {
            return false;
        }
        item = items_[head & (N - 1)];
        head_.store(head + 1, std::memory_order_release);
        return true;
    }

    bool empty() const { return head_.load(std::memory_order_acquire) == tail_.load(std::memory_order_acquire); }

private:
    alignas(128) std::atomic<uint32_t> head_{0};
    alignas(128) std::atomic<uint32_t> tail_{0};
    std::array<T, N> items_;
};

enum class EventKind : uint32_t {
    quarantine,  // values: reason (enum Violation), then what describe() says of it
    detached,    // the session is unmapped
    adopted,     // values: replayed, completions posted, entries skipped, rejected
    rejected,    // values: slot, generation, attempts
    flooding,    // the doorbell is polled by timer from now on; values: rings
    damaged,     // values: slot, generation, the CRC of the inputs, the client's
    bounds,      // the ladder moved; values: steps and Latency, nanoseconds, bound, how often it was broken
    device_stuck,  // values: queue, milliseconds, slot, kernel; UINT64_MAX: a fault, whose words (the device's) are at the next
};

// Why a session was quarantined.
enum class Violation : uint32_t {
    sq_tail,
    cq_head,
    opcode,
    flags,
    reserved,
    sequence,
    crc_missing,
    crc,
    payload_crc,
    slot,
    model,
    slot_in_flight,
    generation,
    not_consumed,
    truncated,
};

struct EventRecord {
    EventKind kind;
    int32_t code;
    uint64_t time_ns;
    uint64_t session;
    uint32_t task;
    std::array<uint64_t, 4> values;
};

const char* event_name(EventKind kind);
std::string describe(const EventRecord& event);  // for people; not called on the engine thread

// Engine thread: push(). Control plane: fd(), drain through pop().
class EventRing {
public:
    EventRing() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
    ~EventRing() { close(fd_); }
    EventRing(const EventRing&) = delete;
    EventRing& operator=(const EventRing&) = delete;

    void push(const EventRecord& event) {
        if (!ring_.push(event)) {
            sync::add_relaxed<uint64_t>(dropped_, 1);
        }
        notify();
    }
    void notify() { eventfd_write(fd_, 1); }

    bool pop(EventRecord& event) { return ring_.pop(event); }
    void clear_fd() {
        eventfd_t value;
        eventfd_read(fd_, &value);
    }
    int fd() const { return fd_; }
    uint64_t dropped() const { return sync::load_relaxed(dropped_); }

private:
    Spsc<EventRecord, 4096> ring_;
    uint64_t dropped_ = 0;
    const int fd_;
};

}  // namespace reef
