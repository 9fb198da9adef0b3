// SPDX-License-Identifier: Apache-2.0
// reef_cancel: what waits is cancelled, what runs is not, what is not there is -ENOENT; each request completes once.
#include "harness.h"

int main(void) {
    begin();
    START_PEER("--slots=3", "--hold");
    reef_session *session = open_session(0);
    struct reef_loan a = loan_of(session, 0), b = loan_of(session, 0), idle = loan_of(session, 0);
    struct reef_completion done;
    for (int round = 0; round < 20; round++) {
        EQUAL(reef_submit(session, &a, NULL), 0);
        EQUAL(reef_submit(session, &b, NULL), 0);
        EQUAL(reef_cancel(session, &idle, LONG_TIME), -ENOENT);
        EQUAL(reef_cancel(session, &a, LONG_TIME), -EALREADY);
        EQUAL(reef_cancel(session, &b, LONG_TIME), 0);
        EQUAL(reef_wait(session, LONG_TIME, &done), 0);
        EQUAL(done.slot, b.slot);
        EQUAL(done.status, -ECANCELED);
        EQUAL(reef_cancel(session, &b, LONG_TIME), -ENOENT);
        reef_seen(session);
        EQUAL(reef_peek(session, &done), -EAGAIN);
        peer_signal(SIGUSR1);
        EQUAL(reef_wait(session, LONG_TIME, &done), 0);
        EQUAL(done.slot, a.slot);
        EQUAL(done.status, 0);
        reef_seen(session);
        EQUAL(reef_cancel(session, &a, LONG_TIME), -ENOENT);
        EQUAL(reef_peek(session, &done), -EAGAIN);
    }
    reef_close(session);
    finish(0);
}
