// SPDX-License-Identifier: Apache-2.0
// A loan is good from reef_loan to reef_release and not a call longer, whatever copies of it there are.
#include "harness.h"

int main(void) {
    begin();
    START_PEER("--slots=2", "--hold");
    reef_session *session = open_session(0);
    struct reef_loan a = loan_of(session, 0), b = loan_of(session, 1), c;
    EQUAL(reef_loan(session, 0, 0, &c), -EAGAIN); /* queue: fail */
    EQUAL(reef_loan(session, 0, LONG_TIME, &c), -EAGAIN);
    EQUAL(reef_loan(session, 2, 0, &c), -EINVAL);
    EQUAL(reef_loan(session, 0, 0, NULL), -EINVAL);
    struct reef_loan copy = a;
    EQUAL(reef_release(session, &a), 0);
    EQUAL(reef_release(session, &a), -EINVAL);
    EQUAL(reef_release(session, &copy), -EINVAL);
    CHECK(reef_input(session, &copy, 0) == NULL && reef_output(session, &copy, 0) == NULL);
    EQUAL(reef_submit(session, &copy, NULL), -EINVAL);
    c = loan_of(session, 0); /* the same slot, another loan */
    EQUAL(c.slot, copy.slot);
    EQUAL(reef_release(session, &copy), -EINVAL);
    EQUAL(reef_submit(session, &copy, NULL), -EINVAL);
    EQUAL(reef_cancel(session, &copy, 0), -EINVAL);
    CHECK(reef_input(session, &copy, 0) == NULL);
    CHECK(reef_input(session, &c, 0) != NULL);
    EQUAL(reef_submit(session, &c, &(struct reef_options){.flags = 1u << 7}), -EINVAL);
    EQUAL(reef_submit(session, &c, &(struct reef_options){.reserved = 1}), -EINVAL);
    EQUAL(reef_submit(session, &c, NULL), 0);
    EQUAL(reef_submit(session, &c, NULL), -EBUSY);
    EQUAL(reef_release(session, &c), -EBUSY);
    peer_signal(SIGUSR1);
    struct reef_completion done;
    EQUAL(reef_wait(session, LONG_TIME, &done), 0);
    EQUAL(reef_release(session, &c), 0); /* shown is enough */
    reef_seen(session);
    EQUAL(reef_release(session, &b), 0);
    reef_close(session);
    EQUAL(reef_release(NULL, &b), -EINVAL);
    finish(0);
}
