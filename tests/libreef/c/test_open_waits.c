// SPDX-License-Identifier: Apache-2.0
// reef_open waits for a daemon that is not there yet.
#include "harness.h"

int main(void) {
    begin();
    pid_t later = fork();
    if (later == 0) {
        nap(150 * MS);
        peer_spawn((const char *const[]){NULL});
        nap(LONG_TIME);
    }
    reef_session *session = open_session(0);
    round_trip(session, 3);
    reef_close(session);
    reef_close(NULL);
    kill(later, SIGKILL);
    finish(0);
}
