// SPDX-License-Identifier: Apache-2.0
// reef_announce reaches the daemon, asleep or not. (The peer counts announcements in stats.preempted.)
#include "harness.h"

int main(void) {
    begin();
    START_PEER();
    reef_session *session = open_session(0);
    for (uint64_t i = 1; i <= 20; i++) {
        EQUAL(reef_announce(session), 0);
        struct reef_stats stats = {0};
        for (int wait = 0; wait < 60000 && stats.preempted < i; wait++) {
            nap(MS);
            EQUAL(reef_stats(session, &stats), 0);
        }
        EQUAL(stats.preempted, i);
    }
    EQUAL(reef_announce(NULL), -EINVAL);
    reef_close(session);
    finish(0);
}
