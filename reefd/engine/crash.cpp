// SPDX-License-Identifier: Apache-2.0
// The handler writes one word that is mapped and locked, and calls nothing else than sigaction(2) and raise(3).
#include "crash.hpp"

#include <csignal>
#include <mutex>

#include "sync.hpp"

namespace reef::crash {

thread_local uint32_t* running __attribute__((tls_model("initial-exec"))) = nullptr;

namespace {

void handle(int signal, siginfo_t* info, void*) {
    if (running) {
        sync::store_release(*running, *running + 1);
        running = nullptr;
    }
    // Back to the default. A fault comes again when its instruction is repeated; abort() raises once more by itself.
    struct sigaction fatal{};
    fatal.sa_handler = SIG_DFL;
    sigaction(signal, &fatal, nullptr);
    if (info->si_code <= 0) {  // sent by a process: nothing would repeat it
        raise(signal);
    }
}

}  // namespace

void install() {
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction action{};
        action.sa_sigaction = handle;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigemptyset(&action.sa_mask);
        for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) {
            struct sigaction previous;
            // What somebody else installed on purpose stays: Python's faulthandler, a sanitizer.
            if (sigaction(fault, nullptr, &previous) == 0 && previous.sa_handler == SIG_DFL) {
                sigaction(fault, &action, nullptr);
            }
        }
    });
}

}  // namespace reef::crash
