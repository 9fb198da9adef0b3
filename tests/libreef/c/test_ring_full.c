// SPDX-License-Identifier: Apache-2.0
// A ring full of cancels that a stopped daemon does not take: -EAGAIN, nothing overwritten, and all is well afterwards.
#include "harness.h"

int main(void) {
    begin();
    START_PEER("--slots=3", "--delay-us=1000");
    reef_session *session = open_session(0);
    EQUAL(reef_header(session)->entries, 8);
    struct reef_loan a = loan_of(session, 0), b = loan_of(session, 0);
    struct reef_completion done;
    for (uint32_t round = 0; round < 5; round++) {
        round_trip(session, round);
        peer_signal(SIGSTOP);
        fill(session, &a, round);
        EQUAL(reef_submit(session, &a, NULL), 0);
        for (int i = 0; i < 7; i++)
            EQUAL(reef_cancel(session, &a, 0), -EAGAIN); /* asked; no verdict yet */
        struct reef_completion none;
        EQUAL(reef_peek(session, &none), -EAGAIN);
        EQUAL(reef_submit(session, &b, NULL), -EAGAIN); /* no room */
        EQUAL(reef_submit_batch(session, &b, NULL, 1), -EAGAIN);
        peer_signal(SIGCONT);
        EQUAL(reef_wait(session, LONG_TIME, &done), 0);
        EQUAL(done.status, 0);
        CHECK(echoed(session, &a, round));
        reef_seen(session);
    }
    reef_close(session);
    finish(0);
}
