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
    /* A slot's old completion, taken late, says nothing of its new request: that one is still in flight. */
    EQUAL(reef_loan(session, 0, LONG_TIME, &newer), 0);
    uint32_t old = newer.slot;
    EQUAL(reef_submit(session, &newer, NULL), 0);
    peer_signal(SIGUSR1);
    struct reef_stats stats = {0};
    for (int wait = 0; wait < 60000 && stats.completed < 7; wait++) {
        nap(MS);
        EQUAL(reef_stats(session, &stats), 0);
    }
    EQUAL(reef_arm(session), 1); /* copies all of them out of the ring */
    EQUAL(reef_peek(session, &done), 0);
    EQUAL(done.slot, old);
    EQUAL(done.status, -ECANCELED);
    EQUAL(reef_release(session, &newer), -EBUSY);
    loan[old] = newer;
    for (int i = 0; i < 5; i++) {
        EQUAL(reef_wait(session, LONG_TIME, &done), 0);
        reef_seen(session);
    }
    for (int i = 0; i < 4; i++)
        EQUAL(reef_submit(session, &loan[i], NULL), 0);
    /* Nobody takes completions: it ends before they, and those to come, are more than the ring and the stash hold. */
    struct reef_loan pair[2];
    EQUAL(reef_loan(session, 0, LONG_TIME, &newer), 0);
    EQUAL(reef_submit(session, &newer, NULL), 0);
    for (int i = 0; i < 2; i++)
        EQUAL(reef_loan(session, 0, LONG_TIME, &pair[i]), 0);
    EQUAL(reef_submit_batch(session, pair, NULL, 2), 0); /* 4 in flight, 3 not taken, of 8 */
    for (int i = 0; i < 2; i++)
        EQUAL(reef_loan(session, 0, LONG_TIME, &pair[i]), 0);
    EQUAL(reef_submit_batch(session, pair, NULL, 2), -EAGAIN);
    EQUAL(reef_submit(session, &pair[0], NULL), 0);
    EQUAL(reef_submit(session, &pair[1], NULL), -EAGAIN);
    EQUAL(reef_loan(session, 0, LONG_TIME, &newer), -EAGAIN);
    peer_signal(SIGUSR1);
    int cancelled = 0, good = 0;
    while (cancelled + good < 8) {
        EQUAL(reef_wait(session, LONG_TIME, &done), 0);
        cancelled += done.status == -ECANCELED;
        good += done.status == 0;
        reef_seen(session);
    }
    EQUAL(cancelled, 5);
    EQUAL(good, 3);
    reef_close(session);
    finish(0);
}
