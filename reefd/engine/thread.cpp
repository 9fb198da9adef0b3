// SPDX-License-Identifier: Apache-2.0
#include "thread.hpp"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>

#include "failure.hpp"

namespace reef {
namespace {

constexpr size_t kStackBytes = 256 * 1024;
constexpr int kPriority = 20;  // above the device's workers, below the kernel's own threads

void lock_stack() {
    pthread_attr_t attributes;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0) {
        return;
    }
    void* base;
    size_t size;
    pthread_attr_getstack(&attributes, &base, &size);
    pthread_attr_destroy(&attributes);
    if (mlock(base, size) != 0) {
        madvise(base, size, MADV_POPULATE_WRITE);
    }
}

}  // namespace

pthread_t start_engine_thread(void* (*main)(void*), void* argument) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, kStackBytes);
    pthread_t thread;
    const int error = pthread_create(&thread, &attributes, main, argument);
    pthread_attr_destroy(&attributes);
    if (error != 0) {
        throw EngineFailure(-error, std::string("the engine thread: ") + std::strerror(error));
    }
    return thread;
}

int prepare_engine_thread(int cpu, bool realtime) {
    pthread_setname_np(pthread_self(), "reef-engine");
    // Signals are the control plane's, but for the faults that this thread itself can cause.
    sigset_t signals;
    sigfillset(&signals);
    for (const int own : {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGABRT}) {
        sigdelset(&signals, own);
    }
    pthread_sigmask(SIG_SETMASK, &signals, nullptr);
    lock_stack();
    if (cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(static_cast<size_t>(cpu), &set);
        pthread_setaffinity_np(pthread_self(), sizeof set, &set);
    }
    const sched_param param{.sched_priority = kPriority};
    return realtime && pthread_setschedparam(pthread_self(), SCHED_FIFO, &param) == 0 ? kPriority : 0;
}

}  // namespace reef
