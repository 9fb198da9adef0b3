// SPDX-License-Identifier: Apache-2.0
// The daemon's death wakes a sleeper; with REEF_OPEN_NO_RECONNECT it hears -ENOTCONN, at once and for good.
#include "harness.h"

int main(void) {
    begin();
    START_PEER("--die-after=1");
    reef_session *session = open_session(REEF_OPEN_NO_RECONNECT);
    struct reef_loan loan = loan_of(session, 0);
    struct reef_completion done;
    EQUAL(reef_infer(session, &loan, NULL, -1, &done), -ENOTCONN);
    EQUAL(reef_wait(session, -1, &done), -ENOTCONN);
    EQUAL(reef_peek(session, &done), -ENOTCONN);
    EQUAL(reef_arm(session), -ENOTCONN);
    reef_close(session);
    peer_kill();

    /* And while it sleeps without anything in flight. */
    START_PEER();
    session = open_session(REEF_OPEN_NO_RECONNECT);
    pid_t killer = fork();
    if (killer == 0) {
        nap(50 * MS);
        kill(peer_pid, SIGKILL);
        _exit(0);
    }
    EQUAL(reef_wait(session, -1, &done), -ENOTCONN);
    reef_close(session);
    waitpid(killer, NULL, 0);
    finish(0);
}
