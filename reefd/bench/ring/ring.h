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

void pin_to(int cpu);
