// SPDX-License-Identifier: Apache-2.0
#include "robust.hpp"

#include <reef_abi.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <string>

#include "failure.hpp"
#include "sync.hpp"

namespace reef {
namespace {

std::byte* reserve(size_t bytes, int protection) {
    void* base = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
        throw EngineFailure(-errno, std::string("address space for the liveness words: ") + std::strerror(errno));
    }
    return static_cast<std::byte*>(base);
}

}  // namespace

RobustWords::RobustWords(uint32_t words)
    : count_(words), nodes_(reserve(words * kStride, PROT_READ | PROT_WRITE)),
      words_(reserve(words * kStride, PROT_NONE)) {}

RobustWords::~RobustWords() {
    munmap(nodes_, count_ * kStride);
    munmap(words_, count_ * kStride);
}

void RobustWords::map(uint32_t i, int d_fd) {
    // Private pages are made on first touch, which must not happen on the engine thread.
    *node(i) = {nullptr, nullptr};
    static_assert(offsetof(reef_d_hot, liveness) == 0);
    if (mmap(word(i), kStride, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_POPULATE, d_fd, REEF_PAGE) ==
        MAP_FAILED) {
        throw EngineFailure(-errno, std::string("mapping the liveness word: ") + std::strerror(errno));
    }
}

void RobustWords::unmap(uint32_t i) {
    mmap(word(i), kStride, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    madvise(node(i), kStride, MADV_DONTNEED);
}

void RobustWords::adopt_thread() {
    tid_ = static_cast<uint32_t>(syscall(SYS_gettid));
    head_.list.next = &head_.list;
    head_.futex_offset = words_ - nodes_;
    head_.list_op_pending = nullptr;
    // Replaces the C library's list: the engine thread holds no robust mutex.
    syscall(SYS_set_robust_list, &head_, sizeof head_);
}

void RobustWords::leave_thread() {
    head_.list.next = &head_.list;
    syscall(SYS_set_robust_list, &head_, sizeof head_);
    tid_ = 0;
}

// list_op_pending names the word while list and word disagree, so that a death in between is seen as well.
void RobustWords::publish(uint32_t i) {
    static_assert(offsetof(Node, next) == offsetof(robust_list, next));
    auto* item = reinterpret_cast<robust_list*>(node(i));
    sync::store_release(head_.list_op_pending, item);
    // FUTEX_WAITERS is always set: the kernel wakes only where it is, and clients never write this word.
    sync::store_release(*word(i), tid_ | FUTEX_WAITERS);
    Node* first = reinterpret_cast<Node*>(head_.list.next);
    *node(i) = {first, nullptr};
    if (head_.list.next != &head_.list) {
        first->previous = node(i);
    }
    sync::store_release(head_.list.next, item);
    sync::store_release(head_.list_op_pending, static_cast<robust_list*>(nullptr));
}

void RobustWords::withdraw(uint32_t i) {
    Node* own = node(i);
    sync::store_release(head_.list_op_pending, reinterpret_cast<robust_list*>(own));
    if (own->previous) {
        own->previous->next = own->next;
    } else {
        head_.list.next = reinterpret_cast<robust_list*>(own->next);
    }
    if (own->next != reinterpret_cast<Node*>(&head_.list)) {
        own->next->previous = own->previous;
    }
    sync::store_release(*word(i), 0u);
    syscall(SYS_futex, word(i), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
    sync::store_release(head_.list_op_pending, static_cast<robust_list*>(nullptr));
}

}  // namespace reef
