// SPDX-License-Identifier: Apache-2.0
// An orderly stop wakes a sleeper with -ESHUTDOWN.
#include "harness.h"

int main(void) {
    begin();
    START_PEER("--hold");
    reef_session *session = open_session(0);
    struct reef_loan loan = loan_of(session, 0);
    struct reef_completion done;
    EQUAL(reef_submit(session, &loan, NULL), 0);
    EQUAL(reef_wait(session, 20 * MS, &done), -ETIMEDOUT);
    pid_t killer = fork();
    if (killer == 0) {
        nap(50 * MS);
        kill(peer_pid, SIGTERM);
        _exit(0);
    }
    EQUAL(reef_wait(session, LONG_TIME, &done), -ESHUTDOWN);
    EQUAL(reef_submit(session, &loan, NULL), -EBUSY);
    reef_close(session);
    waitpid(killer, NULL, 0);
    finish(0);
}
