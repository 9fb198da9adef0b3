// SPDX-License-Identifier: Apache-2.0
// The engine thread's surroundings: stack, processor, scheduling class, signals.
#pragma once
#include <pthread.h>

namespace reef {

// EngineFailure where no thread can be made.
pthread_t start_engine_thread(void* (*main)(void*), void* argument);

// On the new thread: name, signals, locked stack, pinned to `cpu` (-1: not), SCHED_FIFO if `realtime` and allowed.
// Returns the FIFO priority it got, 0 for none.
int prepare_engine_thread(int cpu, bool realtime);

}  // namespace reef
