/* SPDX-License-Identifier: Apache-2.0 */
/*
 * connect.c: the session socket. Asking who is there, opening a session, and taking one over to the daemon's successor.
 *
 * Everything is one non-blocking handshake: connect, send the hello, look for the welcome. reef_open() and reef_probe()
 * sleep between the steps; a session that lost its daemon takes a step whenever a call finds nothing in the ring, so
 * that completions which the successor already replays are never held up by its socket.
 */
#define _GNU_SOURCE
#include "barrier.h"
#include "session.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define DEFAULT_SOCKET "/run/reefd/reef.sock"
#define FIRST_BACKOFF_NS 1000000u
#define LAST_BACKOFF_NS 64000000u
/* A daemon that is there has this long to answer, whatever the caller's timeout: saying who it is takes no time, making
 * a session's regions does. */
#define PROBE_ANSWER_NS 1000000000u
#define OPEN_ANSWER_NS 10000000000u

/* $REEF_SOCKET is ignored in set-user-id programs: it would name whom they trust. */
int socket_path(const char *given, char path[108], char *reason) {
    const char *name = given ? given : secure_getenv("REEF_SOCKET");
    if (!name || !*name)
        name = DEFAULT_SOCKET;
    size_t length = strlen(name);
    if (length >= 108) {
        explain(reason, "the path of the socket is longer than 107 bytes");
        return -ENAMETOOLONG;
    }
    memcpy(path, name, length + 1);
    return 0;
}

void close_fds(int *fds, int n) {
    for (int i = 0; i < n; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = -1;
    }
}

/* The connected socket with the hello on its way, or a negative errno. */
static int ask(const char *path, const struct reef_hello *hello, int c_fd) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec text = {.iov_base = (void *)hello, .iov_len = sizeof *hello};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1};
    if (c_fd >= 0) {
        message.msg_control = control.room;
        message.msg_controllen = sizeof control.room;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &c_fd, sizeof c_fd);
    }
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

/* Takes the first `room` descriptors of a message and closes the rest. */
static void take_fds(struct msghdr *message, int *fds, int room) {
    int taken = 0;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
            if (taken < room)
                fds[taken++] = fd;
            else
                close(fd);
        }
    }
}

/* 0: the daemon answered, welcome->status is its verdict. -EAGAIN: not yet. -ECONNRESET: it hung up. -EPROTO: not a
 * daemon. -EPROTONOSUPPORT: another ABI; then only what every version shares is filled in. */
static int hear(int fd, const char *path, struct reef_welcome *welcome, int fds[WELCOME_FDS], char *reason) {
    union {
        struct reef_welcome welcome;
        char bytes[4096];
    } answer;
    union {
        char room[CMSG_SPACE(8 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec text = {.iov_base = &answer, .iov_len = sizeof answer};
    struct msghdr message = {
        .msg_iov = &text, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
    ssize_t n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? -EAGAIN : -ECONNRESET;
    if (n == 0)
        return -ECONNRESET;
    take_fds(&message, fds, WELCOME_FDS);
    memset(welcome, 0, sizeof *welcome);
    int rc = 0;
    if (n < (ssize_t)offsetof(struct reef_welcome, status) || answer.welcome.magic != REEF_MAGIC) {
        explain(reason, "what listens at %s is not reefd", path);
        rc = -EPROTO;
    } else if (answer.welcome.abi_major != REEF_ABI_MAJOR) {
        memcpy(welcome, &answer, offsetof(struct reef_welcome, status));
        explain(reason,
                "reefd at %s speaks ABI %u.%u, this libreef speaks %u.%u: install the libreef that came with it", path,
                welcome->abi_major, welcome->abi_minor, REEF_ABI_MAJOR, REEF_ABI_MINOR);
        rc = -EPROTONOSUPPORT;
    } else if (n < (ssize_t)sizeof *welcome || message.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) {
        explain(reason, "reefd at %s sent half of an answer", path);
        rc = -EPROTO;
    } else {
        *welcome = answer.welcome;
        welcome->version[sizeof welcome->version - 1] = 0;
        welcome->text[sizeof welcome->text - 1] = 0;
        if (welcome->status > 0) {
            explain(reason, "reefd at %s sent an impossible status", path);
            rc = -EPROTO;
        }
    }
    if (rc < 0 || welcome->status < 0)
        close_fds(fds, WELCOME_FDS);
    return rc;
}

static bool nobody_there(int rc) {
    return rc == -ENOENT || rc == -ECONNREFUSED || rc == -EAGAIN || rc == -ECONNRESET || rc == -EPIPE;
}

/* Sleeps on the socket until it has something, at most until deadline. false: the time is over. */
static bool poll_until(int fd, uint64_t deadline) {
    struct pollfd wanted = {.fd = fd, .events = POLLIN};
    for (;;) {
        uint64_t now = now_ns();
        if (now >= deadline)
            return false;
        struct timespec left = timespec_of(deadline - now);
        int n = ppoll(&wanted, fd >= 0, deadline == FOREVER ? NULL : &left, NULL);
        if (n > 0)
            return true;
        if (n < 0 && errno != EINTR)
            return false;
    }
}

int handshake(const char *path, const struct reef_hello *hello, uint64_t deadline, struct reef_welcome *welcome,
              int fds[WELCOME_FDS], char *reason) {
    uint64_t backoff = FIRST_BACKOFF_NS;
    for (;;) {
        for (int i = 0; i < WELCOME_FDS; i++)
            fds[i] = -1;
        uint64_t asked = now_ns();
        int fd = ask(path, hello, -1);
        int rc = fd;
        if (fd >= 0) {
            uint64_t patience = hello->request == REEF_REQUEST_PROBE ? PROBE_ANSWER_NS : OPEN_ANSWER_NS;
            uint64_t answer_by = deadline > asked + patience ? deadline : asked + patience;
            bool answered = poll_until(fd, answer_by);
            rc = answered ? hear(fd, path, welcome, fds, reason) : -ETIMEDOUT;
            if (rc == 0)
                return fd;
            close(fd);
            if (rc == -ETIMEDOUT)
                explain(reason, "reefd at %s does not answer", path);
        }
        if (!nobody_there(rc)) {
            if (fd < 0)
                explain(reason, "cannot connect to %s: %s", path, reef_strerror(rc));
            return rc;
        }
        uint64_t now = now_ns();
        if (now >= deadline) {
            explain(reason, "no reefd at %s (%s): is it running, and is REEF_SOCKET right?", path,
                    rc == -ENOENT ? "no such socket" : "nobody listens");
            return rc == -ENOENT ? rc : -ECONNREFUSED;
        }
        poll_until(-1, deadline - now < backoff ? deadline : now + backoff);
        backoff = backoff < LAST_BACKOFF_NS ? 2 * backoff : backoff;
    }
}

int reef_probe(const char *socket, int64_t timeout_ns, struct reef_daemon_info *info) {
    if (!info)
        return -EINVAL;
    int saved = errno;
    char path[108], reason[REEF_TEXT_MAX];
    int fds[WELCOME_FDS];
    struct reef_welcome welcome = {0};
    struct reef_hello hello = {.magic = REEF_MAGIC,
                               .abi_major = REEF_ABI_MAJOR,
                               .abi_minor = REEF_ABI_MINOR,
                               .size = sizeof hello,
                               .request = REEF_REQUEST_PROBE};
    int rc = socket_path(socket, path, reason);
    if (rc == 0)
        rc = handshake(path, &hello, deadline_of(timeout_ns), &welcome, fds, reason);
    if (rc >= 0) {
        close(rc);
        close_fds(fds, WELCOME_FDS);
        rc = welcome.status;
    }
    *info = (struct reef_daemon_info){.abi_major = welcome.abi_major,
                                      .abi_minor = welcome.abi_minor,
                                      .pid = welcome.pid,
                                      .daemon_epoch = welcome.daemon_epoch};
    memcpy(info->version, welcome.version, sizeof info->version);
    errno = saved;
    return rc;
}

/* ---------------------------------------------------------------- coming back */

void link_follow(struct reef_session *s, const struct reef_welcome *welcome) {
    s->epoch = welcome->daemon_epoch;
    s->owner = load_acquire(&s->d->liveness) & FUTEX_TID_MASK;
    s->link = LINK_UP;
}

void link_lost(struct reef_session *s) {
    if (s->link != LINK_UP)
        return;
    /* The kernel wakes one waiter of a dead owner's futex. Whoever sees it wakes the others. */
    if (load_acquire(&s->d->liveness) & FUTEX_OWNER_DIED)
        syscall(SYS_futex, &s->d->liveness, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    /* Not left to close(): a forked child may keep the socket, and epoll with it, alive. */
    epoll_ctl(s->poll_fd, EPOLL_CTL_DEL, s->socket, NULL);
    close_fds(&s->socket, 1);
    s->link = LINK_DOWN;
    s->backoff_ns = FIRST_BACKOFF_NS;
    if (s->flags & REEF_OPEN_NO_RECONNECT) {
        explain(s->reason, "the daemon is gone");
        s->error = -ENOTCONN;
    }
}

static void retry_later(struct reef_session *s, uint64_t now) {
    s->retry_ns = now + s->backoff_ns;
    if (s->backoff_ns < LAST_BACKOFF_NS)
        s->backoff_ns *= 2;
}

static bool same_file(int a, int b) {
    struct stat x, y;
    return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* The successor took the session over: its doorbell and socket become ours. */
static int link_join(struct reef_session *s, const struct reef_welcome *welcome, int fds[WELCOME_FDS]) {
    bool ours = welcome->session_id == s->header.session_id && fds[WELCOME_DOORBELL] >= 0 && fds[WELCOME_C] >= 0 &&
                same_file(fds[WELCOME_C], s->c_fd);
    if (!ours) {
        explain(s->reason, "the daemon answered with another session: close and open again");
        s->error = -ESTALE;
        return s->error;
    }
    dup3(fds[WELCOME_DOORBELL], s->doorbell, O_CLOEXEC);
    s->socket = s->asking;
    s->asking = -1;
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(s->poll_fd, EPOLL_CTL_ADD, s->socket, &event);
    link_follow(s, welcome);
    s->retry_ns = now_ns() + FIRST_BACKOFF_NS; /* however often daemons come and go */
    s->reason[0] = 0;
    /* Rung without asking: whatever was submitted meanwhile rang the doorbell of the dead. */
    ring_doorbell(s);
    return 0;
}

static int link_answer(struct reef_session *s, uint64_t now) {
    struct reef_welcome welcome;
    int fds[WELCOME_FDS] = {-1, -1, -1};
    int rc = hear(s->asking, s->path, &welcome, fds, s->reason);
    if (rc == -EAGAIN) {
        retry_later(s, now);
        return 0;
    }
    int status = rc < 0 ? rc : welcome.status;
    if (rc == 0 && status < 0 && welcome.text[0])
        explain(s->reason, "%s", welcome.text);
    if (status == 0)
        status = link_join(s, &welcome, fds);
    close_fds(fds, WELCOME_FDS);
    if (s->link == LINK_UP)
        return 0;
    close_fds(&s->asking, 1);
    s->link = LINK_DOWN;
    retry_later(s, now);
    if (s->error)
        return s->error;
    /* Not ready yet, or about to go again: the next attempt may find somebody. */
    if (status == -ECONNRESET || status == -EAGAIN || status == -EBUSY || status == -ESHUTDOWN)
        return 0;
    s->error = status == -EPROTONOSUPPORT ? status : -ESTALE;
    return s->error;
}

int link_step(struct reef_session *s) {
    link_lost(s);
    if (s->error)
        return s->error;
    uint64_t now = now_ns();
    if (s->link == LINK_DOWN) {
        if (now < s->retry_ns)
            return 0;
        struct reef_hello hello = {.magic = REEF_MAGIC,
                                   .abi_major = REEF_ABI_MAJOR,
                                   .abi_minor = REEF_ABI_MINOR,
                                   .size = sizeof hello,
                                   .request = REEF_REQUEST_RECLAIM,
                                   .session_id = s->header.session_id};
        memcpy(hello.task, s->header.task, sizeof hello.task);
        int fd = ask(s->path, &hello, s->c_fd);
        if (fd < 0) {
            retry_later(s, now);
            return 0;
        }
        s->asking = fd;
        s->link = LINK_ASKED;
        s->backoff_ns = FIRST_BACKOFF_NS;
    }
    /* Looked at in every step: once the successor has answered it sleeps on the new doorbell, and a submission that rang
     * only the old one would lie there. (Before it answers it looks at the ring by timer.) */
    return link_answer(s, now);
}
