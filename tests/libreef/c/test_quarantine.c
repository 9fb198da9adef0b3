// SPDX-License-Identifier: Apache-2.0
// A quarantined session completes its requests with -EPROTO, and then says why nothing goes any more.
#include "harness.h"

int main(void) {
    begin();
    START_PEER("--quarantine-after=2", "--hold");
    reef_session *session = open_session(0);
    struct reef_loan a = loan_of(session, 0), b = loan_of(session, 0);
    struct reef_completion done;
    EQUAL(reef_submit(session, &a, NULL), 0);
    EQUAL(reef_submit(session, &b, NULL), 0);
    for (int i = 0; i < 2; i++) {
        EQUAL(reef_wait(session, LONG_TIME, &done), 0);
        EQUAL(done.status, -EPROTO);
        reef_seen(session);
    }
    EQUAL(reef_wait(session, LONG_TIME, &done), -EPROTO);
    EQUAL(reef_submit(session, &a, NULL), -EPROTO);
    CHECK(strstr(reef_reason(session), "dropped"));
    reef_close(session);
    finish(0);
}
