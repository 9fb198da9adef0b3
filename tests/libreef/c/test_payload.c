// SPDX-License-Identifier: Apache-2.0
// Where the header demands payload CRCs, a bit that flips in either direction is -EILSEQ for that request alone, counted and
// explained; several tensors of odd sizes are covered, the gaps between them are not.
#include "harness.h"

static reef_session *session;
static struct reef_loan loan;
static struct reef_completion done;

static void fill_pair(void) {
    const int32_t a[6] = {1, 2, 3, 4, 5, 6};
    memcpy(reef_input(session, &loan, 0), a, sizeof a);
    memcpy(reef_input(session, &loan, 1), "abcde", 5);
}

int main(void) {
    begin();
    START_PEER("--payload", "--hold");
    session = open_session(0);
    struct reef_stats stats;
    loan = loan_of(session, 1);
    for (int round = 0; round < 3; round++) {
        fill_pair();
        EQUAL(reef_submit(session, &loan, NULL), 0);
        if (round == 1)
            ((uint8_t *)reef_input(session, &loan, 1))[4] ^= 0x40;  // between submission and use
        if (round == 2)
            ((uint8_t *)reef_input(session, &loan, 1))[5] ^= 0x40;  // behind the last byte: nobody's
        peer_signal(SIGUSR1);
        EQUAL(reef_wait(session, LONG_TIME, &done), 0);
        EQUAL(done.status, round == 1 ? -EILSEQ : 0);
        if (round == 1)
            CHECK(strstr(reef_reason(session), "inputs of slot") && done.flags == REEF_DAMAGED_INPUTS);
        else
            EQUAL(*(const double *)reef_output(session, &loan, 0), 21);
        reef_seen(session);
        EQUAL(reef_stats(session, &stats), 0);
        EQUAL(stats.damaged, round > 0);
    }
    reef_close(session);
    peer_kill();

    START_PEER("--payload", "--damage-output");
    session = open_session(0);
    loan = loan_of(session, 1);
    for (int round = 1; round < 3; round++) {
        fill_pair();
        EQUAL(reef_infer(session, &loan, NULL, LONG_TIME, &done), -EILSEQ);
        CHECK(strstr(reef_reason(session), "outputs of slot") && done.flags & REEF_DAMAGED_OUTPUTS);
        EQUAL(reef_stats(session, &stats), 0);
        EQUAL(stats.damaged, round);
    }
    reef_close(session);
    finish(0);
}
