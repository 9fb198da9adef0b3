// SPDX-License-Identifier: Apache-2.0
// reef_probe: nobody there, somebody there, another ABI, somebody who does not answer.
#include "harness.h"

int main(void) {
    begin();
    struct reef_daemon_info info;
    EQUAL(reef_probe(socket_name, 0, &info), -ENOENT);
    EQUAL(reef_probe(socket_name, 20 * MS, &info), -ENOENT);
    EQUAL(reef_probe(socket_name, 0, NULL), -EINVAL);
    START_PEER();
    EQUAL(reef_probe(socket_name, LONG_TIME, &info), 0);
    EQUAL(info.pid, peer_pid);
    EQUAL(info.abi_major, REEF_ABI_MAJOR);
    EQUAL(info.abi_minor, REEF_ABI_MINOR);
    CHECK(info.daemon_epoch != 0);
    CHECK(strcmp(info.version, "peer 1") == 0);
    setenv("REEF_SOCKET", socket_name, 1);
    EQUAL(reef_probe(NULL, LONG_TIME, &info), 0);
    peer_kill();
    EQUAL(reef_probe(socket_name, 0, &info), -ECONNREFUSED); /* the name is still there */
    START_PEER("--abi=7");
    EQUAL(reef_probe(socket_name, LONG_TIME, &info), -EPROTONOSUPPORT);
    EQUAL(info.abi_major, 7);
    peer_kill();
    START_PEER("--silent");
    EQUAL(reef_probe(socket_name, 0, &info), -ETIMEDOUT);
    char longest[200];
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = 0;
    EQUAL(reef_probe(longest, 0, &info), -ENAMETOOLONG);
    finish(0);
}
