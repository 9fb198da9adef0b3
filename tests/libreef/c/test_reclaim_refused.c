// SPDX-License-Identifier: Apache-2.0
// A successor that does not know the session any more: -ESTALE with its words; one that is not ready yet: patience.
#include "harness.h"

int main(void) {
    begin();
    struct reef_completion done;
    START_PEER();
    reef_session *session = open_session(0);
    peer_kill();
    START_PEER("--refuse-reclaim=2");
    EQUAL(reef_wait(session, LONG_TIME, &done), -ESTALE);
    EQUAL(reef_wait(session, LONG_TIME, &done), -ESTALE);
    CHECK(strcmp(reef_reason(session), "not reclaimed on purpose") == 0);
    reef_close(session);
    peer_kill();

    START_PEER();
    session = open_session(0);
    peer_kill();
    START_PEER("--abi=7");
    EQUAL(reef_wait(session, LONG_TIME, &done), -EPROTONOSUPPORT);
    CHECK(strstr(reef_reason(session), "7.1"));
    reef_close(session);
    peer_kill();

    START_PEER();
    session = open_session(0);
    peer_kill();
    START_PEER("--wrong-region"); /* answers with another file: never mapped, never trusted */
    EQUAL(reef_wait(session, LONG_TIME, &done), -ESTALE);
    CHECK(strstr(reef_reason(session), "another session"));
    reef_close(session);
    peer_kill();

    START_PEER();
    session = open_session(0);
    peer_kill();
    START_PEER("--refuse-reclaim=11");
    EQUAL(reef_wait(session, 100 * MS, &done), -ETIMEDOUT);
    peer_kill();
    START_PEER("--hang-up");
    EQUAL(reef_wait(session, 50 * MS, &done), -ETIMEDOUT);
    peer_kill();
    START_PEER("--silent");
    EQUAL(reef_wait(session, 50 * MS, &done), -ETIMEDOUT);
    peer_kill();
    START_PEER();
    round_trip(session, 9);
    reef_close(session);
    finish(0);
}
