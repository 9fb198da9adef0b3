// SPDX-License-Identifier: Apache-2.0
// The engine thread's robust futexes: when it dies, however it dies, the kernel sets FUTEX_OWNER_DIED in each session's
// liveness word and wakes one of its waiters.
//
// The kernel finds a word at a constant distance from its list node. The nodes must not lie in memory that a client can
// read or a successor could trust, so they are private; the words lie in regions D. Therefore two address ranges are
// reserved, one page for each session in both: page i of the first holds node i, page i of the second is a second
// mapping of the page of session i's D that holds its liveness word.
#pragma once
#include <linux/futex.h>

#include <cstddef>
#include <cstdint>

namespace reef {

class RobustWords {
public:
    static constexpr uint32_t kMaxWords = 2000;  // the kernel stops at 2,048

    explicit RobustWords(uint32_t words);
    ~RobustWords();
    RobustWords(const RobustWords&) = delete;
    RobustWords& operator=(const RobustWords&) = delete;

    // Any thread, before adopt_thread's thread uses word i: maps D's page into place. EngineFailure when it cannot.
    void map(uint32_t i, int d_fd);
    void unmap(uint32_t i);

    // The engine thread.
    void adopt_thread();        // this thread's death is to be seen from now on
    void leave_thread();        // no longer: it ends in order
    void publish(uint32_t i);   // word i = this thread's id
    void withdraw(uint32_t i);  // word i = 0, waiters woken

private:
    struct Node {
        Node* next;
        Node* previous;
    };
    Node* node(uint32_t i) const { return reinterpret_cast<Node*>(nodes_ + i * kStride); }
    uint32_t* word(uint32_t i) const { return reinterpret_cast<uint32_t*>(words_ + i * kStride); }

    static constexpr size_t kStride = 4096;
    uint32_t count_;
    std::byte* nodes_;
    std::byte* words_;
    robust_list_head head_{};
    uint32_t tid_ = 0;
};

}  // namespace reef
