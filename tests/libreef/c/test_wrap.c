// SPDX-License-Identifier: Apache-2.0
// Free-running indices and generations run through 2^32.
#include "harness.h"

int main(void) {
    begin();
    START_PEER("--slots=3", "--first=4294967290");
    reef_session *session = open_session(0);
    struct reef_loan loans[3];
    struct reef_completion done;
    for (int i = 0; i < 3; i++)
        loans[i] = loan_of(session, 0);
    for (uint32_t round = 0; round < 20; round++) {
        for (uint32_t i = 0; i < 3; i++)
            fill(session, &loans[i], round * 3 + i);
        EQUAL(reef_submit_batch(session, loans, NULL, 2), 0);
        EQUAL(reef_infer(session, &loans[2], NULL, LONG_TIME, &done), 0);
        for (int i = 0; i < 2; i++) {
            EQUAL(reef_wait(session, LONG_TIME, &done), 0);
            EQUAL(done.slot, loans[i].slot);
            reef_seen(session);
        }
        for (uint32_t i = 0; i < 3; i++)
            CHECK(echoed(session, &loans[i], round * 3 + i));
    }
    EQUAL(loans[0].generation, (uint32_t)(4294967290u + 20));
    reef_close(session);
    finish(0);
}
