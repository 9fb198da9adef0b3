/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.c: the life of a session, and how its thread sleeps and is woken.
 *
 * A sleeper waits for two words at once: cq_tail, which the daemon wakes after a completion, and liveness, which the
 * kernel wakes when the daemon dies (a robust futex). Kernels before 5.16 cannot wait for two futexes; there it waits
 * for the session socket, on which the daemon sends a byte for each completion when asked, and which hangs up when the
 * daemon dies. No helper thread either way.
 */
#define _GNU_SOURCE
#include "session.h"
#include "barrier.h"

#include <linux/futex.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

/* Spinning looks at the clock and at the daemon once in this many turns. */
#define SPIN_TURNS 64

/* struct futex_waitv, which headers older than the kernel lack. */
struct wait_word {
    uint64_t value;
    uint64_t address;
    uint32_t flags;
    uint32_t reserved;
};
enum { WAIT_WORD_U32 = 2 };

/* ---------------------------------------------------------------- open and close */

/* EINVAL from a call without waiters: it is there. ENOSYS: an old kernel. Anything else: a sandbox forbids it. */
static bool has_waitv(void) { return syscall(SYS_futex_waitv, NULL, 0, 0, NULL, 0) < 0 && errno == EINVAL; }

static void session_free(struct reef_session *s) {
    free(s->model);
    free(s->tensor);
    free(s->slot);
    free(s->stash);
    free(s);
}

static void session_drop(struct reef_session *s) {
    int *fds[] = {&s->socket, &s->asking, &s->doorbell, &s->c_fd, &s->poll_fd, &s->timer_fd};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        close_fds(fds[i], 1);
    mapping_drop(s->mapping);
    session_free(s);
}

static int make_poll_fd(struct reef_session *s) {
    struct epoll_event event = {.events = EPOLLIN};
    s->poll_fd = epoll_create1(EPOLL_CLOEXEC);
    s->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (s->poll_fd < 0 || s->timer_fd < 0 || epoll_ctl(s->poll_fd, EPOLL_CTL_ADD, s->socket, &event) < 0 ||
        epoll_ctl(s->poll_fd, EPOLL_CTL_ADD, s->timer_fd, &event) < 0)
        return -errno;
    return 0;
}

static int open_session(struct reef_session *s, const struct reef_open_params *params) {
    struct reef_hello hello = {.magic = REEF_MAGIC,
                               .abi_major = REEF_ABI_MAJOR,
                               .abi_minor = REEF_ABI_MINOR,
                               .size = sizeof hello,
                               .request = REEF_REQUEST_OPEN};
    if (!params->task || !*params->task || strlen(params->task) >= sizeof hello.task) {
        explain(s->reason, "a task's name has 1 to %zu bytes", sizeof hello.task - 1);
        return -EINVAL;
    }
    memcpy(hello.task, params->task, strlen(params->task));
    int rc = socket_path(params->socket, s->path, s->reason);
    if (rc < 0)
        return rc;
    struct reef_welcome welcome;
    int fds[WELCOME_FDS];
    rc = handshake(s->path, &hello, deadline_of(params->timeout_ns), &welcome, fds, s->reason);
    if (rc < 0)
        return rc;
    s->socket = rc;
    s->doorbell = fds[WELCOME_DOORBELL];
    s->c_fd = fds[WELCOME_C];
    if (welcome.status < 0) {
        if (welcome.text[0])
            explain(s->reason, "%s", welcome.text);
        else
            explain(s->reason, "the daemon refused: %s", reef_strerror(welcome.status));
        return welcome.status;
    }
    if (fds[WELCOME_DOORBELL] < 0) {
        close_fds(fds + WELCOME_D, 1);
        explain(s->reason, "the daemon sent too few descriptors");
        return -EPROTO;
    }
    rc = region_map(s, &welcome, s->c_fd, fds[WELCOME_D]);
    close_fds(fds + WELCOME_D, 1);
    if (rc < 0)
        return rc;
    link_follow(s, &welcome);
    s->submit_error = s->header.features_read_only ? -EROFS : 0;
    /* An entry's checksum costs less than asking whether this task wants one; the tensors' does not. */
    s->sqe_flags = REEF_SQE_CRC | (uint16_t)s->header.sqe_flags_required |
                   (s->header.queue_policy == REEF_QUEUE_LATEST ? REEF_SQE_LATEST : 0);
    s->waitv = has_waitv();
    return make_poll_fd(s);
}

int reef_open(const struct reef_open_params *params, reef_session **session) {
    struct reef_open_params given = {0};
    if (!params || !session || params->size < offsetof(struct reef_open_params, timeout_ns) ||
        params->size > sizeof given)
        return -EINVAL;
    memcpy(&given, params, params->size);
    if (given.flags & ~(uint32_t)REEF_OPEN_NO_RECONNECT)
        return -EINVAL;
    *session = NULL;
    struct reef_session *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    int saved = errno;
    s->socket = s->asking = s->doorbell = s->c_fd = s->poll_fd = s->timer_fd = -1;
    s->flags = given.flags;
    s->spin_ns = given.spin_ns;
    int rc = open_session(s, &given);
    if (given.reason)
        memcpy(given.reason, s->reason, REEF_TEXT_MAX);
    if (rc < 0)
        session_drop(s);
    else
        *session = s;
    errno = saved;
    return rc;
}

/* The daemon sees the socket hang up, and cancels and frees what is left. A forked child has no mappings, and its
 * descriptors' numbers may long mean something else. */
void reef_close(reef_session *s) {
    if (!s)
        return;
    int saved = errno;
    if (usable(s))
        session_drop(s);
    else
        session_free(s);
    errno = saved;
}

/* ---------------------------------------------------------------- is the daemon there? */

static bool alive(const struct reef_session *s, uint32_t liveness) {
    return s->owner && (liveness & (FUTEX_OWNER_DIED | FUTEX_TID_MASK)) == s->owner;
}

int session_check(struct reef_session *s) {
    if (s->error)
        return s->error;
    int verdict = load_acquire(&s->d->verdict);
    if (verdict) {
        explain(s->reason, "the daemon dropped this session: %s", reef_strerror(verdict));
        s->error = verdict < 0 ? verdict : -EPROTO;
        return s->error;
    }
    /* SYNC POINT daemon-epoch: the partner is the engine's adoption. */
    if (s->link == LINK_UP && load_acquire(&s->d->daemon_epoch) == s->epoch && alive(s, load_acquire(&s->d->liveness)))
        return 0;
    int saved = errno;
    int rc = link_step(s);
    errno = saved;
    return rc;
}

void ring_doorbell(struct reef_session *s) {
    const uint64_t one = 1;
    int saved = errno;
    while (write(s->doorbell, &one, sizeof one) < 0 && errno == EINTR) {
    }
    errno = saved;
}

/* Takes the bytes that asked for attention off the socket. An end of file: the daemon let go of us. */
static void drain_socket(struct reef_session *s) {
    char bytes[8];
    ssize_t n;
    if (s->link != LINK_UP)
        return;
    do
        n = recv(s->socket, bytes, sizeof bytes, MSG_DONTWAIT);
    while (n > 0 || (n < 0 && errno == EINTR));
    if (n == 0 || errno != EAGAIN)
        link_lost(s);
}

/* ---------------------------------------------------------------- sleep */

static bool completion_there(const struct reef_session *s) { return load_relaxed(&s->d->cq_tail) != s->cq_head; }

static void sleep_on_futexes(struct reef_session *s, uint32_t liveness, uint64_t until) {
    struct wait_word words[2] = {{.value = s->cq_head, .address = (uintptr_t)&s->d->cq_tail, .flags = WAIT_WORD_U32},
                                 {.value = liveness, .address = (uintptr_t)&s->d->liveness, .flags = WAIT_WORD_U32}};
    struct timespec deadline = timespec_of(until);
    syscall(SYS_futex_waitv, words, 2, 0, until == FOREVER ? NULL : &deadline, CLOCK_MONOTONIC);
}

static void sleep_on_socket(struct reef_session *s, uint64_t until) {
    uint64_t now = now_ns();
    if (now >= until)
        return;
    struct timespec left = timespec_of(until - now);
    struct pollfd wanted = {.fd = s->link == LINK_UP ? s->socket : s->asking, .events = POLLIN};
    ppoll(&wanted, 1, until == FOREVER ? NULL : &left, NULL);
    drain_socket(s);
}

void sleep_once(struct reef_session *s, uint64_t until) {
    /* Read before the last look at the ring: a death after this changes the word, and the wait returns at once. */
    uint32_t liveness = load_acquire(&s->d->liveness);
    if (s->link == LINK_UP && !alive(s, liveness))
        return;
    if (s->link != LINK_UP && s->retry_ns < until)
        until = s->retry_ns;
    uint32_t bits = s->waiting;
    s->waiting = bits | (s->waitv ? REEF_WAIT_FUTEX : REEF_WAIT_SOCKET);
    /* SYNC POINT cq-waiting: the partner is the engine's publication of cq_tail. */
    store_relaxed(&s->c->cq_waiting, s->waiting);
    full_fence();
    if (!completion_there(s)) {
        if (s->waitv)
            sleep_on_futexes(s, liveness, until);
        else
            sleep_on_socket(s, until);
    }
    s->waiting = bits;
    store_relaxed(&s->c->cq_waiting, bits);
}

/* true: a completion is there. false: spun long enough, or it is time to look after daemon and deadline. */
static bool spin(struct reef_session *s, uint64_t *spin_until, uint64_t deadline) {
    for (;;) {
        for (int i = 0; i < SPIN_TURNS; i++) {
            if (completion_there(s))
                return true;
            spin_pause();
        }
        uint64_t now = now_ns();
        if (*spin_until == 0)
            *spin_until = s->spin_ns < 0 ? FOREVER : now + (uint64_t)s->spin_ns;
        if (now >= *spin_until || now >= deadline || load_relaxed(&s->d->daemon_epoch) != s->epoch ||
            load_relaxed(&s->d->verdict) || !alive(s, load_relaxed(&s->d->liveness)))
            return false;
    }
}

int await_completion(struct reef_session *s, uint64_t deadline) {
    uint64_t spin_until = 0;
    if (s->spin_ns && spin(s, &spin_until, deadline))
        return 0;
    int saved = errno;
    int rc = 0;
    while (!completion_there(s)) {
        rc = session_check(s);
        /* What the daemon completed before it gave the session up still counts. */
        if (rc < 0 && completion_there(s))
            rc = 0;
        if (rc < 0)
            break;
        if (deadline != FOREVER && now_ns() >= deadline) {
            rc = -ETIMEDOUT;
            break;
        }
        if (s->spin_ns < 0 && s->link == LINK_UP)
            spin(s, &spin_until, deadline);
        else
            sleep_once(s, deadline);
    }
    errno = saved;
    return rc;
}

/* ---------------------------------------------------------------- event loops */

int reef_fd(const reef_session *session) { return usable(session) ? session->poll_fd : -EINVAL; }

int reef_arm(reef_session *s) {
    if (!usable(s))
        return -EINVAL;
    int saved = errno;
    int rc = pull(s);
    if (rc == 0 && s->stash_head == s->stash_tail) {
        drain_socket(s);
        rc = session_check(s);
        if (rc == 0) {
            /* Armed while the link is down, so that the loop comes back for the next attempt. */
            struct itimerspec when = {.it_value = timespec_of(s->link == LINK_UP ? 0 : s->retry_ns | 1)};
            timerfd_settime(s->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
            s->waiting |= REEF_WAIT_SOCKET;
            /* SYNC POINT cq-waiting: the partner is the engine's publication of cq_tail. */
            store_relaxed(&s->c->cq_waiting, s->waiting);
            full_fence();
        }
    }
    if (rc == 0)
        rc = s->stash_head != s->stash_tail || completion_there(s);
    errno = saved;
    return rc;
}

/* ---------------------------------------------------------------- words */

const char *reef_reason(const reef_session *session) { return session ? session->reason : ""; }

int reef_stats(const reef_session *session, struct reef_stats *stats) {
    if (!usable(session) || !stats)
        return -EINVAL;
    const struct reef_stats *from = &session->d->stats;
    *stats = (struct reef_stats){.accepted = load_relaxed(&from->accepted),
                                 .completed = load_relaxed(&from->completed),
                                 .failed = load_relaxed(&from->failed),
                                 .late = load_relaxed(&from->late),
                                 .preempted = load_relaxed(&from->preempted),
                                 .queue_ns = load_relaxed(&from->queue_ns),
                                 .execute_ns = load_relaxed(&from->execute_ns),
                                 .damaged = load_relaxed(&from->damaged) + session->damaged};
    return 0;
}

const char *reef_strerror(int error) {
    switch (error) {
    case 0:
        return "success";
    case -EACCES:
        return "not allowed: the task's manifest or the socket's permissions do not name this user";
    case -EAGAIN:
        return "nothing there yet, or nothing free";
    case -EALREADY:
        return "too late to cancel: it is running or done";
    case -EBADMSG:
        return "damaged shared memory: a check failed; close the session and open it again";
    case -EBUSY:
        return "the request of this loan is in flight";
    case -ECANCELED:
        return "the request was cancelled";
    case -ECONNREFUSED:
        return "no daemon listens there";
    case -EDEADLK:
        return "every slot is held by the caller and none is in flight: waiting cannot help";
    case -EILSEQ:
        return "the inputs or the outputs did not arrive as they were sent: their CRC is wrong; submit again";
    case -EINVAL:
        return "a wrong argument, a loan that is not held, or a process that forked";
    case -EIO:
        return "the device failed while this request ran";
    case -EMFILE:
        return "too many sessions or too many descriptors";
    case -ENAMETOOLONG:
        return "a name or a path that is too long";
    case -ENOENT:
        return "no such daemon, task, model or request";
    case -ENOMEM:
        return "not enough memory";
    case -ENOTCONN:
        return "the daemon is gone";
    case -EPROTO:
        return "protocol error: the daemon quarantined the session, or what listens is not reefd";
    case -EPROTONOSUPPORT:
        return "the daemon has another ABI: install the libreef that came with it";
    case -EROFS:
        return "the daemon uses a feature that this libreef does not know: it may look, not submit";
    case -ESHUTDOWN:
        return "the daemon was stopped";
    case -ESTALE:
        return "the daemon came back without this session: close it and open again";
    case -ETIME:
        return "the deadline passed before the request was finished";
    case -ETIMEDOUT:
        return "the time is over";
    default:
        return "an error of the operating system";
    }
}

const char *reef_version(void) { return REEF_VERSION; }
