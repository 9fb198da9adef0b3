// SPDX-License-Identifier: Apache-2.0
// A timeout ends the waiting, never the request: its completion comes later.
#include "harness.h"

int main(void) {
    begin();
    START_PEER("--hold");
    reef_session *session = open_session(0);
    struct reef_loan loan = loan_of(session, 0);
    struct reef_completion done;
    EQUAL(reef_wait(session, 0, &done), -EAGAIN);
    EQUAL(reef_wait(session, 1, &done), -ETIMEDOUT);
    fill(session, &loan, 1);
    EQUAL(reef_infer(session, &loan, NULL, 0, &done), -EAGAIN);
    EQUAL(reef_release(session, &loan), -EBUSY);
    uint64_t before = now();
    EQUAL(reef_wait(session, 30 * MS, &done), -ETIMEDOUT);
    CHECK(now() - before >= (uint64_t)(30 * MS));
    peer_signal(SIGUSR1);
    EQUAL(reef_wait(session, LONG_TIME, &done), 0);
    EQUAL(done.slot, loan.slot);
    CHECK(echoed(session, &loan, 1));
    reef_seen(session);
    EQUAL(reef_infer(session, &loan, NULL, 3 * MS, &done), -ETIMEDOUT);
    reef_close(session); /* with a request in flight */
    finish(0);
}
