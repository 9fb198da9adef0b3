// SPDX-License-Identifier: Apache-2.0
// One client's session as the engine thread knows it. Made (mapped, checked, adopted) by the control plane's thread,
// then handed to the engine thread, and handed back when nothing of it is in flight any more.
#pragma once
#include <reef_abi.h>

#include <atomic>
#include <cstdint>
#include <vector>

#include "announcements.hpp"
#include "region.hpp"
#include "request.hpp"
#include "task.hpp"

namespace reef {

// A descriptor of our own; -1: none.
class Descriptor {
public:
    Descriptor() = default;
    explicit Descriptor(int fd) : fd_(fd) {}
    Descriptor(Descriptor&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
    Descriptor& operator=(Descriptor&& other) noexcept;
    ~Descriptor();
    // EngineFailure where the number is not a descriptor; -1 gives an empty one.
    static Descriptor duplicate(int fd);

    int get() const { return fd_; }
    explicit operator bool() const { return fd_ >= 0; }

private:
    int fd_ = -1;
};

// How the engine learns of new entries.
enum class Watch : uint8_t {
    none,      // not served (any more)
    doorbell,  // need_wakeup is set, the doorbell is in epoll
    polled,    // looked at in each turn
    timer,     // looked at every few milliseconds: no doorbell yet, or it rings too often
};

// A request during which the daemon died so often is answered with -EIO: by the fault of its kernels or of the device
// under them, and in all. What nobody saw the reason of counts little: an operator's SIGKILLs can hit one request often.
inline constexpr uint32_t kMaxCrashes = 2;
inline constexpr uint32_t kMaxAttempts = 16;

struct AdoptionReport {
    uint32_t replayed = 0;
    uint32_t posted = 0;
    uint32_t skipped = 0;
    uint32_t rejected = 0;
};

struct SessionPlace {
    uint64_t id;
    uint32_t index;  // in the engine's tables
    uint64_t daemon_epoch;
    int c_fd;
    int d_fd;
    int doorbell_fd;
    int socket_fd;
};

struct Session {
    // Maps both regions. New: writes D. Adopt: checks D, posts missing completions, and leaves what must be replayed in
    // `replays`, oldest first. Throws EngineFailure; nothing of a region is changed before all of it was checked.
    Session(Task& task, const SessionPlace& place, bool adopted);
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    // Lets the device reach both regions where it can, before the first request; else it copies tensors itself, and `refused`
    // says why if that was refused.
    void reach(Device& device, std::string& refused);

    Binding binding(uint32_t slot) {
        return {c.base() + inputs_offset + slot * inputs_stride, d.base() + outputs_offset + slot * outputs_stride,
                device_ != nullptr, &slots[slot].crashes};
    }

    const uint64_t id;
    const uint32_t index;
    const uint64_t daemon_epoch;
    Task& task;
    Descriptor d_fd;
    Descriptor doorbell;
    Descriptor socket;
    Mapping c;
    Mapping d;

    // Region C: the client may change any of it at any time.
    const reef_c_hot* client = nullptr;
    const reef_sqe* sq = nullptr;
    // Region D: ours.
    reef_d_hot* hot = nullptr;
    reef_cqe* cq = nullptr;
    reef_d_slot* slots = nullptr;
    uint32_t entries = 0;
    uint64_t inputs_offset = 0;
    uint64_t inputs_stride = 0;
    uint64_t outputs_offset = 0;
    uint64_t outputs_stride = 0;

    // The engine thread's own copies: D is never read back.
    uint32_t sq_head = 0;
    uint64_t cq_tail = 0;  // its low half is D's
    reef_stats stats{};
    std::vector<Request> requests;  // one for each slot
    List<Request, &Request::session_link> unstarted;
    uint32_t outstanding = 0;
    int32_t verdict = 0;
    bool frozen = false;   // takes no requests any more
    bool leaving = false;  // detach was asked for
    bool attached = false;
    int32_t leaving_code = 0;

    Watch watch = Watch::none;
    bool doorbell_open = false;  // in epoll
    Link<Session> watch_link;
    uint64_t idle_since_ns = 0;
    uint64_t penalty_until_ns = 0;
    uint64_t ring_window_ns = 0;  // start of the current window of counting idle rings
    uint32_t idle_rings = 0;

    uint32_t announced = 0;
    Announcement announcement;

    std::atomic<uint32_t> faulted{0};
    bool fault_seen = false;

    const bool adopted;
    std::vector<Request*> replays;
    AdoptionReport adoption;

private:
    void take_over();
    int guard_ = -1;
    Device* device_ = nullptr;  // reaches both regions
};

}  // namespace reef
