// SPDX-License-Identifier: Apache-2.0
// Round trips through libreef to an echo task: the daemon copies the first and the last word of the input.
#include "ring.h"

#include <reef.h>
#include <string.h>

enum { WARM_UP = 200 };

void expect(int rc, const char* what, const char* reason) {
    if (rc != 0) {
        fprintf(stderr, "ring_client: %s: %s %s\n", what, reef_strerror(rc), reason);
        exit(1);
    }
}

void session_rounds(const char* task, int spin, uint32_t rounds, uint32_t* times) {
    char reason[REEF_TEXT_MAX] = "";
    const struct reef_open_params params = {
        .size = sizeof params, .task = task, .timeout_ns = 10000000000, .spin_ns = spin ? -1 : 0, .reason = reason};
    reef_session* session;
    expect(reef_open(&params, &session), "reef_open", reason);
    struct reef_loan loan;
    expect(reef_loan(session, 0, -1, &loan), "reef_loan", "");
    struct reef_tensor_info info;
    expect(reef_input_info(session, 0, 0, &info), "reef_input_info", "");
    uint64_t* input = reef_input(session, &loan, 0);
    const uint64_t* output = reef_output(session, &loan, 0);
    const size_t words = info.size / sizeof *input;

    for (uint32_t i = 0; i < WARM_UP + rounds; i++) {
        for (size_t word = 0; word < words; word++) {
            input[word] = word + i;
        }
        struct reef_completion done;
        const uint64_t start = now_ns();
        const int rc = reef_infer(session, &loan, NULL, -1, &done);
        const uint64_t end = now_ns();
        expect(rc, "reef_infer", reef_reason(session));
        check(output[0] == input[0] && output[1] == input[words - 1], "the echo");
        if (i >= WARM_UP) {
            times[i - WARM_UP] = (uint32_t)(end - start);
        }
    }
    expect(reef_release(session, &loan), "reef_release", "");
    reef_close(session);
}
