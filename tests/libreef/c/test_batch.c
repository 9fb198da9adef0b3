// SPDX-License-Identifier: Apache-2.0
// reef_submit_batch: all or none, one ring publication, completions in order of the daemon.
#include "harness.h"

int main(void) {
    begin();
    START_PEER("--slots=3");
    reef_session *session = open_session(0);
    struct reef_loan loans[4] = {{0}};
    struct reef_options options[3] = {{.user_data = 1}, {.user_data = 2}, {.user_data = 3}};
    struct reef_completion done;
    for (int i = 0; i < 3; i++)
        loans[i] = loan_of(session, 0);
    EQUAL(reef_submit_batch(session, loans, options, 0), 0);
    /* None of a batch goes where one of it cannot: the same loan twice, a loan that is not held, bad options, too many. */
    struct reef_loan twice[3] = {loans[0], loans[1], loans[0]};
    EQUAL(reef_submit_batch(session, twice, options, 3), -EBUSY);
    struct reef_loan strange[2] = {loans[0], {.slot = 1, .ticket = 99}};
    EQUAL(reef_submit_batch(session, strange, options, 2), -EINVAL);
    struct reef_options wrong[2] = {{0}, {.flags = 1u << 9}};
    EQUAL(reef_submit_batch(session, loans, wrong, 2), -EINVAL);
    EQUAL(reef_submit_batch(session, NULL, NULL, 1), -EINVAL);
    EQUAL(reef_submit_batch(session, loans, NULL, 4), -EAGAIN);
    EQUAL(reef_peek(session, &done), -EAGAIN);
    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < 3; i++)
            fill(session, &loans[i], (uint32_t)(round + i));
        EQUAL(reef_submit_batch(session, loans, options, 3), 0);
        for (int i = 0; i < 3; i++) {
            EQUAL(reef_wait(session, LONG_TIME, &done), 0);
            EQUAL(done.user_data, i + 1);
            EQUAL(done.slot, loans[i].slot);
            CHECK(echoed(session, &loans[i], (uint32_t)(round + i)));
            reef_seen(session);
        }
        EQUAL(reef_peek(session, &done), -EAGAIN);
    }
    reef_close(session);
    finish(0);
}
