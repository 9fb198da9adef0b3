// SPDX-License-Identifier: Apache-2.0
// queue: block. reef_loan sleeps until the caller has something to take, and says so when that can never be.
#include "harness.h"

int main(void) {
    begin();
    START_PEER("--slots=2", "--policy=1", "--hold");
    reef_session *session = open_session(0);
    struct reef_loan a = loan_of(session, 0), b = loan_of(session, 0), c;
    struct reef_completion done;
    EQUAL(reef_loan(session, 0, LONG_TIME, &c), -EDEADLK);
    EQUAL(reef_submit(session, &a, NULL), 0);
    EQUAL(reef_loan(session, 0, 0, &c), -EAGAIN);
    EQUAL(reef_loan(session, 0, 1 * MS, &c), -ETIMEDOUT);
    pid_t later = fork();
    if (later == 0) {
        nap(50 * MS);
        kill(peer_pid, SIGUSR1);
        _exit(0);
    }
    EQUAL(reef_loan(session, 0, LONG_TIME, &c), -EAGAIN); /* woken by the completion */
    waitpid(later, NULL, 0);
    EQUAL(reef_peek(session, &done), 0);
    EQUAL(done.slot, a.slot);
    reef_seen(session);
    EQUAL(reef_release(session, &a), 0);
    EQUAL(reef_loan(session, 0, LONG_TIME, &c), 0);
    EQUAL(reef_release(session, &b), 0);
    reef_close(session);
    finish(0);
}
