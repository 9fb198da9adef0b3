// SPDX-License-Identifier: Apache-2.0
// queue: latest. With every slot in use the oldest request that has not started gives up its slot.
#include "harness.h"

int main(void) {
    begin();
    START_PEER("--slots=4", "--policy=2", "--hold");
    reef_session *session = open_session(0);
    struct reef_loan loan[4], newer;
    struct reef_completion done;
    for (int i = 0; i < 4; i++) {
        loan[i] = loan_of(session, 0);
        fill(session, &loan[i], (uint32_t)i);
        EQUAL(reef_submit(session, &loan[i], &(struct reef_options){.user_data = (uint64_t)i}), 0);
    }
    /* 0 runs (the peer holds it); 1, then 2, are dropped. */
    for (int i = 1; i <= 2; i++) {
        EQUAL(reef_loan(session, 0, LONG_TIME, &newer), 0);
        EQUAL(newer.slot, loan[i].slot);
        CHECK(reef_input(session, &loan[i], 0) == NULL);
        EQUAL(reef_release(session, &loan[i]), -EINVAL);
        fill(session, &newer, (uint32_t)(10 + i));
        EQUAL(reef_submit(session, &newer, &(struct reef_options){.user_data = (uint64_t)(10 + i)}), 0);
        EQUAL(reef_peek(session, &done), 0);
        EQUAL(done.user_data, i);
        EQUAL(done.status, -ECANCELED);
        reef_seen(session);
        loan[i] = newer;
    }
    /* Nobody takes completions: it ends before they are more than the stash holds. */
    int taken = 0;
    while (taken < 100) {
        int rc = reef_loan(session, 0, LONG_TIME, &newer);
        if (rc == -EAGAIN)
            break;
        EQUAL(rc, 0);
        rc = reef_submit(session, &newer, NULL);
        if (rc == -EAGAIN)
            break;
        EQUAL(rc, 0);
        taken++;
    }
    EQUAL(taken, 4);
    peer_signal(SIGUSR1);
    int cancelled = 0, good = 0;
    while (reef_wait(session, 200 * MS, &done) == 0) {
        cancelled += done.status == -ECANCELED;
        good += done.status == 0;
        reef_seen(session);
    }
    EQUAL(cancelled, 4);
    EQUAL(good, 4);
    reef_close(session);
    finish(0);
}
