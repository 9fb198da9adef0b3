// SPDX-License-Identifier: Apache-2.0
// A damaged completion is -EBADMSG, from then on, and never an answer.
#include "harness.h"

int main(void) {
    begin();
    static const char *const ways[] = {"crc", "slot", "generation", "sequence", "status", "tail"};
    for (int i = 0; i < 6; i++) {
        char option[40];
        snprintf(option, sizeof option, "--corrupt-cqe=%s", ways[i]);
        START_PEER(option);
        reef_session *session = open_session(0);
        struct reef_loan loan = loan_of(session, 0), other;
        struct reef_completion done;
        EQUAL(reef_infer(session, &loan, NULL, LONG_TIME, &done), -EBADMSG);
        EQUAL(reef_wait(session, LONG_TIME, &done), -EBADMSG);
        EQUAL(reef_peek(session, &done), -EBADMSG);
        EQUAL(reef_loan(session, 0, 0, &other), -EBADMSG);
        EQUAL(reef_arm(session), -EBADMSG);
        CHECK(reef_reason(session)[0]);
        reef_close(session);
        peer_kill();
    }
    finish(0);
}
