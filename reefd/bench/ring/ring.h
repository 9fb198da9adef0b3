// SPDX-License-Identifier: Apache-2.0
// What the parts of ring_client share: the clock, the checks, and the functions that fill a list of round-trip times.
#pragma once
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static inline uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static inline void check(int ok, const char* what) {
    if (!ok) {
        fprintf(stderr, "ring_client: %s failed\n", what);
        exit(1);
    }
}

// One round trip to a child process on `peer_cpu` (-1: anywhere); times[i] in nanoseconds.
void raw_spin(uint32_t rounds, uint32_t* times, int peer_cpu);
void raw_eventfd_futex(uint32_t rounds, uint32_t* times, int peer_cpu);
void unix_socket(uint32_t rounds, uint32_t* times, int peer_cpu);

// The same through libreef to the echo task `task`, filling the whole input (not timed) before each round.
void session_rounds(const char* task, int spin, uint32_t rounds, uint32_t* times);

// Of one request to a task, in nanoseconds of the same clock on both sides; a stamp of the daemon is that of its turn,
// which may have begun a moment before.
struct paced {
    int64_t whole;   // from before reef_submit() until the client has the completion
    int64_t submit;  // reef_submit() itself
    int64_t heard;   // from before reef_submit() until the daemon launches it
    int64_t ran;     // from the launch until the daemon completes it
    int64_t woke;    // from there until the client has the completion
};
struct pace {
    uint64_t period_ns;
    uint64_t announce_ns;  // how long ahead each request is announced; 0: not
};
void paced_rounds(const char* task, const struct pace* pace, uint32_t rounds, struct paced* times);

// 0, or the end of the program with libreef's words.
void expect(int rc, const char* what, const char* reason);

void pin_to(int cpu);
