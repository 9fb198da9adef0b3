// SPDX-License-Identifier: Apache-2.0
// Submitting while no daemon is there costs nothing but time: the successor finds the request in the ring.
#include "harness.h"

int main(void) {
    begin();
    START_PEER();
    reef_session *session = open_session(0);
    round_trip(session, 1);
    struct reef_completion done;
    for (uint32_t round = 0; round < 5; round++) {
        peer_kill();
        struct reef_loan loan = loan_of(session, 0);
        fill(session, &loan, round);
        EQUAL(reef_submit(session, &loan, NULL), 0);
        EQUAL(reef_peek(session, &done), -EAGAIN);
        EQUAL(reef_wait(session, 5 * MS, &done), -ETIMEDOUT);
        EQUAL(reef_announce(session), 0);
        START_PEER();
        EQUAL(reef_wait(session, LONG_TIME, &done), 0);
        CHECK(echoed(session, &loan, round));
        reef_seen(session);
        EQUAL(reef_release(session, &loan), 0);
        /* A successor that came while nobody looked. */
        peer_kill();
        START_PEER();
        round_trip(session, round);
    }
    reef_close(session);
    finish(0);
}
