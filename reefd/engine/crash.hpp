// SPDX-License-Identifier: Apache-2.0
// Whose fault it was: when a kernel of a request kills the process, the request's slot in region D says so afterwards.
//
// A worker that runs a block has the slot's word here. On SIGSEGV, SIGBUS, SIGFPE, SIGILL or abort() in such a thread the
// handler counts the word up and lets the signal do its work; the next daemon finds the count (session.cpp). So a
// request is rejected for the daemons that it killed itself, and not for those that were killed while it ran.
#pragma once
#include <cstdint>

namespace reef::crash {

// Of this thread; initial-exec, so that the handler need not allocate it.
extern constinit thread_local uint32_t* running __attribute__((tls_model("initial-exec")));

// Process-wide, once. Before sigbus::install(), which hands on what is not its own.
void install();

}  // namespace reef::crash
