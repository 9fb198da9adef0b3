// SPDX-License-Identifier: Apache-2.0
// After fork the session belongs to the parent: the child hears -EINVAL everywhere and can close without harm.
#include "harness.h"

#include <sys/mman.h>

int main(void) {
    begin();
    START_PEER("--hold");
    reef_session *session = open_session(0);
    void *held = reef_hold(session);
    CHECK(held);
    struct reef_loan loan = loan_of(session, 0), other;
    EQUAL(reef_submit(session, &loan, NULL), 0);
    void *input = reef_input(session, &loan, 0);
    unsigned char core;
    EQUAL(mincore(input, 1, &core), 0);
    pid_t child = fork();
    if (child == 0) {
        struct reef_completion done;
        struct reef_model_info model;
        struct reef_stats stats;
        peer_pid = 0;
        EQUAL(mincore(input, 1, &core), -1); /* not inherited */
        EQUAL(reef_wait(session, -1, &done), -EINVAL);
        EQUAL(reef_peek(session, &done), -EINVAL);
        EQUAL(reef_submit(session, &loan, NULL), -EINVAL);
        EQUAL(reef_submit_batch(session, &loan, NULL, 1), -EINVAL);
        EQUAL(reef_loan(session, 0, 0, &other), -EINVAL);
        EQUAL(reef_release(session, &loan), -EINVAL);
        EQUAL(reef_cancel(session, &loan, 0), -EINVAL);
        EQUAL(reef_infer(session, &loan, NULL, -1, NULL), -EINVAL);
        EQUAL(reef_announce(session), -EINVAL);
        EQUAL(reef_arm(session), -EINVAL);
        EQUAL(reef_fd(session), -EINVAL);
        EQUAL(reef_model_count(session), -EINVAL);
        EQUAL(reef_model_info(session, 0, &model), -EINVAL);
        EQUAL(reef_stats(session, &stats), -EINVAL);
        CHECK(reef_input(session, &loan, 0) == NULL && reef_output(session, &loan, 0) == NULL);
        CHECK(reef_header(session) == NULL && reef_hold(session) == NULL);
        reef_seen(session);
        reef_close(session);
        reef_unhold(held);
        _exit(33);
    }
    int status;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status));
    EQUAL(WEXITSTATUS(status), 33);
    struct reef_completion done;
    peer_signal(SIGUSR1);
    EQUAL(reef_wait(session, LONG_TIME, &done), 0);
    reef_close(session);
    reef_unhold(held);
    finish(0);
}
