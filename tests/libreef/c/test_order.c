// SPDX-License-Identifier: Apache-2.0
// reef_infer takes its own completion from behind others, which stay in order for peek and wait.
#include "harness.h"

int main(void) {
    begin();
    START_PEER("--slots=4");
    reef_session *session = open_session(0);
    struct reef_loan a = loan_of(session, 0), b = loan_of(session, 0), c = loan_of(session, 0);
    struct reef_completion done;
    for (uint32_t round = 0; round < 50; round++) {
        fill(session, &a, round);
        fill(session, &b, round + 1);
        fill(session, &c, round + 2);
        EQUAL(reef_submit(session, &a, &(struct reef_options){.user_data = 1}), 0);
        EQUAL(reef_submit(session, &b, &(struct reef_options){.user_data = 2}), 0);
        EQUAL(reef_infer(session, &c, &(struct reef_options){.user_data = 3}, LONG_TIME, &done), 0);
        EQUAL(done.user_data, 3);
        CHECK(echoed(session, &c, round + 2));
        /* a and b were copied out of the ring but not shown: still in flight. */
        EQUAL(reef_release(session, &a), -EBUSY);
        EQUAL(reef_submit(session, &b, NULL), -EBUSY);
        EQUAL(reef_peek(session, &done), 0);
        EQUAL(done.user_data, 1);
        EQUAL(reef_peek(session, &done), 0);
        EQUAL(done.user_data, 1);
        /* Shown, not yet seen: the loan may fly again, and its older completion stays first. */
        EQUAL(reef_infer(session, &a, &(struct reef_options){.user_data = 4}, LONG_TIME, &done), 0);
        EQUAL(done.user_data, 4);
        EQUAL(reef_wait(session, 0, &done), 0);
        EQUAL(done.user_data, 1);
        reef_seen(session);
        EQUAL(reef_wait(session, 0, &done), 0);
        EQUAL(done.user_data, 2);
        reef_seen(session);
        EQUAL(reef_wait(session, 0, &done), -EAGAIN);
        reef_seen(session); /* nothing there: no effect */
    }
    reef_close(session);
    finish(0);
}
