// SPDX-License-Identifier: Apache-2.0
// reef_fd in an event loop: a completion wakes it, and so do the daemon's death and the return of its successor, through
// one registration that is never renewed.
#include "harness.h"

#include <sys/epoll.h>

static int loop;

// Arms and sleeps until a completion is there: how often the loop woke.
static int until_completion(reef_session *session, struct reef_completion *done) {
    for (int wakeups = 0; wakeups < 20000; wakeups++) {
        struct epoll_event event;
        int rc = reef_arm(session);
        CHECK(rc >= 0);
        if (rc == 0)
            EQUAL(epoll_wait(loop, &event, 1, 60000), 1);
        rc = reef_peek(session, done);
        if (rc == 0) {
            reef_seen(session);
            return wakeups;
        }
        EQUAL(rc, -EAGAIN);
    }
    CHECK(!"the loop does not spin");
    return 0;
}

int main(void) {
    begin();
    START_PEER("--hold");
    reef_session *session = open_session(0);
    loop = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    EQUAL(epoll_ctl(loop, EPOLL_CTL_ADD, reef_fd(session), &event), 0);
    struct reef_loan loan = loan_of(session, 0);
    struct reef_completion done;
    EQUAL(reef_arm(session), 0);
    EQUAL(epoll_wait(loop, &event, 1, 0), 0);
    for (uint32_t round = 0; round < 20; round++) {
        fill(session, &loan, round);
        EQUAL(reef_submit(session, &loan, NULL), 0);
        EQUAL(reef_arm(session), 0);
        peer_signal(SIGUSR1);
        CHECK(until_completion(session, &done) < 5);
        CHECK(echoed(session, &loan, round));
    }
    /* A daemon that lives and hangs up: found out and reclaimed, without spinning on the dead socket. */
    for (uint32_t round = 0; round < 3; round++) {
        EQUAL(reef_arm(session), 0);
        peer_signal(SIGUSR2);
        EQUAL(epoll_wait(loop, &event, 1, 60000), 1);
        EQUAL(reef_arm(session), 0);
        fill(session, &loan, round);
        EQUAL(reef_submit(session, &loan, NULL), 0);
        EQUAL(reef_arm(session), 0);
        nap(20 * MS);
        peer_signal(SIGUSR1);
        CHECK(until_completion(session, &done) < 20);
        CHECK(echoed(session, &loan, round));
    }
    for (uint32_t round = 0; round < 3; round++) {
        fill(session, &loan, round);
        EQUAL(reef_submit(session, &loan, NULL), 0);
        EQUAL(reef_arm(session), 0);
        peer_kill();
        EQUAL(epoll_wait(loop, &event, 1, 60000), 1);
        int lives[2];  // both ends are closed by those who had them when the last of them died
        EQUAL(pipe(lives), 0);
        uint64_t since = now();
        pid_t later = fork();
        if (later == 0) {
            nap(100 * MS);
            peer_spawn((const char *const[]){NULL});
            nap(2 * LONG_TIME);
            _exit(0);
        }
        close(lives[1]);
        int wakeups = until_completion(session, &done);
        CHECK((uint64_t)wakeups < 200 + (now() - since) / MS); /* timers, not a busy loop */
        EQUAL(done.status, 0);
        CHECK(echoed(session, &loan, round));
        kill(later, SIGKILL);
        waitpid(later, NULL, 0);
        char none;
        EQUAL(read(lives[0], &none, 1), 0); /* its peer died with it */
        close(lives[0]);
        peer_spawn((const char *const[]){"--hold", NULL});
        peer_ready();
    }
    reef_close(session);
    finish(0);
}
