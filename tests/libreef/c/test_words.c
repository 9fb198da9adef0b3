// SPDX-License-Identifier: Apache-2.0
// Every error has words, errno stays the caller's, and the version is there.
#include "harness.h"

int main(void) {
    begin();
    for (int error = -200; error <= 5; error++)
        CHECK(reef_strerror(error) && reef_strerror(error)[0]);
    CHECK(strcmp(reef_strerror(-ESTALE), reef_strerror(-EIO)) != 0);
    CHECK(reef_version()[0]);
    CHECK(reef_reason(NULL)[0] == 0);
    struct reef_daemon_info info;
    reef_session *session;
    struct reef_completion done;
    errno = 4242;
    reef_probe(socket_name, 0, &info);
    EQUAL(errno, 4242);
    START_PEER();
    struct reef_open_params given = params(0);
    errno = 4242;
    EQUAL(reef_open(&given, &session), 0);
    EQUAL(errno, 4242);
    round_trip(session, 1);
    EQUAL(errno, 4242);
    EQUAL(reef_wait(session, 2 * MS, &done), -ETIMEDOUT);
    EQUAL(reef_arm(session), 0);
    EQUAL(errno, 4242);
    peer_kill();
    errno = 4242;
    EQUAL(reef_wait(session, 2 * MS, &done), -ETIMEDOUT);
    struct reef_loan loan = loan_of(session, 0);
    EQUAL(reef_submit(session, &loan, NULL), 0);
    EQUAL(reef_cancel(session, &loan, 2 * MS), -ETIMEDOUT);
    reef_close(session);
    EQUAL(errno, 4242);
    finish(0);
}
