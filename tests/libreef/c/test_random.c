// SPDX-License-Identifier: Apache-2.0
// Random calls, many of them: every submitted request completes exactly once, with its own answer.
#include "harness.h"

#define SLOTS 4
#define REQUESTS 600

int main(void) {
    begin();
    START_PEER("--slots=4", "--delay-us=20");
    reef_session *session = open_session(0);
    struct reef_loan loan[SLOTS];
    uint32_t seed[SLOTS];
    bool flying[SLOTS] = {false};
    uint64_t submitted = 0, completed = 0, random = 88172645463325252ull;
    for (uint32_t i = 0; i < SLOTS; i++)
        loan[i] = loan_of(session, 0);
    while (completed < REQUESTS) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        uint32_t i = (uint32_t)(random >> 20) % SLOTS;
        struct reef_completion done;
        bool ending = submitted == REQUESTS;
        switch (ending ? 4 : random % 6) {
        case 0:
        case 1:
            if (flying[i]) {
                EQUAL(reef_submit(session, &loan[i], NULL), -EBUSY);
                break;
            }
            seed[i] = (uint32_t)random;
            fill(session, &loan[i], seed[i]);
            EQUAL(reef_submit(session, &loan[i], NULL), 0);
            flying[i] = true;
            submitted++;
            break;
        case 2:
            if (flying[i])
                break;
            fill(session, &loan[i], (uint32_t)random);
            EQUAL(reef_infer(session, &loan[i], NULL, LONG_TIME, &done), 0);
            EQUAL(done.slot, loan[i].slot);
            CHECK(echoed(session, &loan[i], (uint32_t)random));
            break;
        case 3: {
            int rc = reef_cancel(session, &loan[i], LONG_TIME);
            CHECK(flying[i] ? rc == 0 || rc == -EALREADY : rc == -ENOENT);
            break;
        }
        default: {
            int rc = reef_wait(session, ending ? LONG_TIME : (long long)(random >> 40) % 50000, &done);
            if (rc < 0) {
                CHECK(rc == -EAGAIN || rc == -ETIMEDOUT);
                break;
            }
            uint32_t at = 0;
            while (loan[at].slot != done.slot)
                at++;
            CHECK(flying[at] && done.generation == loan[at].generation);
            CHECK(done.status == -ECANCELED || (done.status == 0 && echoed(session, &loan[at], seed[at])));
            reef_seen(session);
            flying[at] = false;
            completed++;
        }
        }
    }
    EQUAL(submitted, completed);
    EQUAL(reef_wait(session, 5 * MS, &(struct reef_completion){0}), -ETIMEDOUT);
    reef_close(session);
    finish(0);
}
