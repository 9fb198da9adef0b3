// SPDX-License-Identifier: Apache-2.0
// reef_open says why it failed: arguments, nobody there, the daemon's own refusal, another ABI, a damaged handshake.
#include "harness.h"

static char reason[REEF_TEXT_MAX];

static int attempt(struct reef_open_params given) {
    reef_session *session = NULL;
    memset(reason, 0, sizeof reason);
    given.reason = reason;
    int rc = reef_open(&given, &session);
    CHECK(rc < 0 && session == NULL);
    return rc;
}

int main(void) {
    begin();
    struct reef_open_params given = params(0);
    reef_session *session;
    EQUAL(reef_open(NULL, &session), -EINVAL);
    EQUAL(reef_open(&given, NULL), -EINVAL);
    given.size = 3;
    EQUAL(attempt(given), -EINVAL);
    given.size = sizeof given + 8;
    EQUAL(attempt(given), -EINVAL);
    given = params(1u << 31);
    EQUAL(attempt(given), -EINVAL);
    given = params(0);
    given.task = NULL;
    EQUAL(attempt(given), -EINVAL);
    given.task = "0123456789012345678901234567890123456789012345678901234567890123";
    EQUAL(attempt(given), -EINVAL);
    CHECK(strstr(reason, "63"));

    given = params(0);
    given.timeout_ns = 30 * MS;
    EQUAL(attempt(given), -ENOENT);
    CHECK(strstr(reason, socket_name) && strstr(reason, "REEF_SOCKET"));

    START_PEER();
    given = params(0);
    given.task = "another";
    EQUAL(attempt(given), -ENOENT);
    CHECK(strcmp(reason, "no such task; there is: test") == 0);
    peer_kill();

    START_PEER("--refuse=13");
    EQUAL(attempt(params(0)), -EACCES);
    CHECK(strcmp(reason, "refused on purpose") == 0);
    peer_kill();

    START_PEER("--abi=7");
    EQUAL(attempt(params(0)), -EPROTONOSUPPORT);
    CHECK(strstr(reason, "7.1") && strstr(reason, "1.1"));
    peer_kill();

    START_PEER("--fds=2");
    EQUAL(attempt(params(0)), -EPROTO);
    peer_kill();

    START_PEER("--hang-up");
    given = params(0);
    given.timeout_ns = 30 * MS;
    int rc = attempt(given);
    while (rc == -ETIMEDOUT) /* on a busy machine the peer took longer than that to hang up */
        rc = attempt(given);
    EQUAL(rc, -ECONNREFUSED);
    finish(0);
}
