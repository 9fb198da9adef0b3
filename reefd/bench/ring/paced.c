// SPDX-License-Identifier: Apache-2.0
// Requests to a task at a rate, spinning for each answer, and where the time of each went.
#include <errno.h>
#include <reef.h>
#include <string.h>

#include "ring.h"

// Between requests the processor is left to others until this long before the next.
enum { WAKE_EARLY_NS = 200000, WARM_UP = 20 };

// An answer that takes longer does not come: the benchmark ends and says so.
static const int64_t longest_ns = 10000000000;

static uint64_t xorshift(uint64_t* state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void sleep_until(uint64_t due_ns) {
    const struct timespec due = {(time_t)(due_ns / 1000000000), (long)(due_ns % 1000000000)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) == EINTR) {
    }
}

static void spin_until(uint64_t due_ns) {
    while (now_ns() < due_ns) {
    }
}

// Floats of [0, 1), from the same seed for everybody; other types stay zero.
static void fill(reef_session* session, const struct reef_loan* loan) {
    uint64_t random = 88172645463325252u;
    struct reef_tensor_info info;
    for (uint32_t input = 0; reef_input_info(session, 0, input, &info) == 0; input++) {
        float* at = reef_input(session, loan, input);
        for (uint64_t i = 0; info.dtype == REEF_FLOAT32 && i < info.size / sizeof *at; i++) {
            at[i] = (float)(xorshift(&random) >> 40) / (float)(1 << 24);
        }
    }
}

void paced_rounds(const char* task, const struct pace* pace, uint32_t rounds, struct paced* times) {
    char reason[REEF_TEXT_MAX] = "";
    const struct reef_open_params params = {
        .size = sizeof params, .task = task, .timeout_ns = 30000000000, .spin_ns = -1, .reason = reason};
    reef_session* session;
    expect(reef_open(&params, &session), "reef_open", reason);
    struct reef_loan loan;
    expect(reef_loan(session, 0, -1, &loan), "reef_loan", "");
    fill(session, &loan);

    uint64_t random = 2463534242u;
    const uint64_t start = now_ns();
    for (uint32_t i = 0; i < WARM_UP + rounds; i++) {
        const uint64_t due = start + i * pace->period_ns + xorshift(&random) % (pace->period_ns / 4 + 1);
        sleep_until(due - pace->announce_ns - WAKE_EARLY_NS);
        if (pace->announce_ns != 0) {
            spin_until(due - pace->announce_ns);
            expect(reef_announce(session), "reef_announce", reef_reason(session));
        }
        spin_until(due);
        struct reef_completion done;
        const uint64_t before = now_ns();
        int rc = reef_submit(session, &loan, NULL);
        const uint64_t submitted = now_ns();
        if (rc == 0) {
            rc = reef_wait(session, longest_ns, &done);
        }
        const uint64_t after = now_ns();
        expect(rc, "a request", reef_reason(session));
        expect(done.status, "a request", reef_reason(session));
        reef_seen(session);
        if (i >= WARM_UP) {
            times[i - WARM_UP] = (struct paced){(int64_t)(after - before), (int64_t)(submitted - before),
                                                (int64_t)(done.start_ns - before),
                                                (int64_t)(done.end_ns - done.start_ns), (int64_t)(after - done.end_ns)};
        }
    }
    expect(reef_release(session, &loan), "reef_release", "");
    reef_close(session);
}
