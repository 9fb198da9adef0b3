// SPDX-License-Identifier: Apache-2.0
// A held mapping outlives its session and goes with the last holder.
#include "harness.h"

#include <sys/mman.h>

static bool mapped(const void *address) {
    unsigned char core;
    return mincore((void *)address, 1, &core) == 0;
}

int main(void) {
    begin();
    START_PEER();
    reef_session *session = open_session(0);
    struct reef_loan loan = loan_of(session, 0);
    fill(session, &loan, 5);
    EQUAL(reef_infer(session, &loan, NULL, LONG_TIME, NULL), 0);
    uint8_t *input = (uint8_t *)reef_input(session, &loan, 0);
    const uint8_t *output = (const uint8_t *)reef_output(session, &loan, 0);
    void *first = reef_hold(session), *second = reef_hold(session);
    CHECK(first && second);
    reef_close(session);
    CHECK(mapped(input) && mapped(output));
    CHECK(memcmp(input, output, 64) == 0);
    input[0] = 3;
    reef_unhold(first);
    CHECK(mapped(input) && mapped(output));
    reef_unhold(second);
    CHECK(!mapped(input) && !mapped(output));
    reef_unhold(NULL);
    CHECK(reef_hold(NULL) == NULL);

    session = open_session(0);
    loan = loan_of(session, 0);
    input = (uint8_t *)reef_input(session, &loan, 0);
    reef_close(session);
    CHECK(!mapped(input));
    finish(0);
}
