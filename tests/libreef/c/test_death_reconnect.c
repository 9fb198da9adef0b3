// SPDX-License-Identifier: Apache-2.0
// A session outlives its daemon: the accepted request is completed by the successor, once, and work goes on.
#include "harness.h"

static void successor(void) { peer_spawn((const char *const[]){NULL}); }

int main(void) {
    begin();
    START_PEER("--die-after=3");
    reef_session *session = open_session(0);
    int fd = reef_fd(session);
    for (int round = 0; round < 10; round++) {
        struct reef_completion done;
        struct reef_loan loan;
        for (uint32_t i = 0; i < 2; i++)
            round_trip(session, i);
        loan = loan_of(session, 0);
        fill(session, &loan, 42);
        EQUAL(reef_submit(session, &loan, NULL), 0);
        peer_dead();
        EQUAL(reef_wait(session, 10 * MS, &done), -ETIMEDOUT); /* the default is to wait on */
        if (round % 2)
            successor();
        else
            peer_spawn((const char *const[]){"--die-after=3", NULL});
        EQUAL(reef_wait(session, LONG_TIME, &done), 0);
        EQUAL(done.status, 0);
        EQUAL(done.flags, REEF_CQE_REPLAYED);
        EQUAL(done.generation, loan.generation);
        reef_seen(session);
        CHECK(echoed(session, &loan, 42));
        EQUAL(reef_release(session, &loan), 0);
        EQUAL(reef_fd(session), fd);
        if (round % 2) {
            round_trip(session, 7); /* the new doorbell works */
            peer_kill();
            peer_spawn((const char *const[]){"--die-after=3", NULL});
        }
    }
    reef_close(session);
    finish(0);
}
