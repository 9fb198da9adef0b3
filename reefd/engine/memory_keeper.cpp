// SPDX-License-Identifier: Apache-2.0
// The keeper runs on the thread-local storage of the thread that makes it. That thread waits until the keeper sleeps; from
// then on no call of the keeper can fail, so errno is left alone.
#include "memory_keeper.hpp"

#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <csignal>

#include "sync.hpp"

namespace reef {
namespace {

enum State : int { preparing, ready, failed };

struct Keeper {
    pollfd process{};  // its pidfd: readable when the process has ended and its descriptors are closed
    int state = preparing;
    alignas(64) std::array<char, 16384> stack{};
};

Keeper keeper;

int keep(void*) {
    const auto fd = static_cast<unsigned>(keeper.process.fd);
    prctl(PR_SET_NAME, "reef-memory");
    const bool closed = (fd == 0 || syscall(SYS_close_range, 0u, fd - 1, 0u) == 0) &&
                        syscall(SYS_close_range, fd + 1, UINT_MAX, 0u) == 0;
    sync::store_release(keeper.state, closed ? ready : failed);
    if (closed) {
        syscall(SYS_ppoll, &keeper.process, 1, nullptr, nullptr, 0);  // every signal is blocked: no EINTR
    }
    syscall(SYS_exit_group, 0);
    return 0;
}

}  // namespace

bool keep_memory() {
    const long fd = syscall(SYS_pidfd_open, getpid(), 0);
    if (fd < 0) {
        return false;
    }
    keeper.process = {.fd = static_cast<int>(fd), .events = POLLIN, .revents = 0};
    keeper.state = preparing;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    // No signal to this process when the keeper ends: nobody waits for it.
    const int pid = clone(keep, keeper.stack.data() + keeper.stack.size(), CLONE_VM, nullptr);
    while (pid > 0 && sync::load_acquire(keeper.state) == preparing && waitpid(pid, nullptr, __WCLONE | WNOHANG) == 0) {
        sched_yield();
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    close(static_cast<int>(fd));
    return pid > 0 && sync::load_acquire(keeper.state) == ready;
}

}  // namespace reef
