// SPDX-License-Identifier: Apache-2.0
// Real-time requests that were announced and have not come: which, until when, and how much of the time they may hold
// best-effort work back.
#pragma once
#include <algorithm>
#include <cstdint>

#include "intrusive.hpp"

namespace reef {

// A share of the time, of which at most kCapacityNs can be saved up.
class HoldBudget {
public:
    static constexpr uint64_t kCapacityNs = 50'000'000;

    // One part in `part` of the time.
    explicit HoldBudget(uint64_t part) : part_(part) {}
    bool take(uint64_t ns, uint64_t now_ns) {
        left_ns_ = std::min(kCapacityNs, left_ns_ + (now_ns - std::min(now_ns, refilled_ns_)) / part_);
        refilled_ns_ = now_ns;
        if (left_ns_ < ns) {
            return false;
        }
        left_ns_ -= ns;
        return true;
    }
    void give_back(uint64_t ns) { left_ns_ = std::min(kCapacityNs, left_ns_ + ns); }

private:
    const uint64_t part_;
    uint64_t left_ns_ = kCapacityNs;
    uint64_t refilled_ns_ = 0;
};

// Of one session: it announces one request at a time.
struct Announcement {
    static constexpr uint64_t kPart = 5;

    uint64_t until_ns = 0;  // while it is listed
    HoldBudget budget{kPart};
    Link<Announcement> link;
};

class Announcements {
public:
    explicit Announcements(uint64_t hold_ns) : hold_ns_(hold_ns) {}

    bool empty() const { return list_.empty(); }
    // False: it is not heard, since the session, or all of them together, held best-effort work back for too long. Not
    // while it is listed.
    bool add(Announcement& announcement, uint64_t now_ns) {
        const uint64_t until_ns = now_ns + hold_ns_;
        const uint64_t longer_ns = until_ns - std::max(now_ns, held_until_ns_);
        if (!announcement.budget.take(hold_ns_, now_ns)) {
            return false;
        }
        if (!budget_.take(longer_ns, now_ns)) {
            announcement.budget.give_back(hold_ns_);
            return false;
        }
        announcement.until_ns = held_until_ns_ = until_ns;
        list_.push_back(announcement);
        return true;
    }
    // Its request came, or its session leaves: what it did not use of its time goes back. False: it was not listed.
    bool remove(Announcement& announcement, uint64_t now_ns) {
        if (!decltype(list_)::contains(announcement)) {
            return false;
        }
        list_.remove(announcement);
        announcement.budget.give_back(left_ns(announcement.until_ns, now_ns));
        if (list_.empty()) {
            budget_.give_back(left_ns(held_until_ns_, now_ns));
            held_until_ns_ = now_ns;
        }
        return true;
    }
    // Forgets those whose time is over. True: there was one.
    bool expire(uint64_t now_ns) {
        bool any = false;
        while (!list_.empty() && list_.front()->until_ns <= now_ns) {
            list_.remove(*list_.front());
            any = true;
        }
        return any;
    }
    // Each holds for as long, so the first one is the next to expire.
    uint64_t next_ns() const { return list_.empty() ? UINT64_MAX : list_.front()->until_ns; }

private:
    static constexpr uint64_t kPart = 2;
    static uint64_t left_ns(uint64_t until_ns, uint64_t now_ns) { return until_ns > now_ns ? until_ns - now_ns : 0; }

    const uint64_t hold_ns_;
    uint64_t held_until_ns_ = 0;
    HoldBudget budget_{kPart};  // of all sessions together
    List<Announcement, &Announcement::link> list_;
};

}  // namespace reef
