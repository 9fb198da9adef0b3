// SPDX-License-Identifier: Apache-2.0
// peer.c: plays the daemon for the tests of libreef, as far as the session socket and the two regions go.
//
// It knows reef_abi.h and nothing of libreef or reefd. It runs two models on the spot ("echo" copies its input, "pair" has
// several tensors of several types and ranks), checks every submission as strictly as a daemon would, and misbehaves on
// request: late, dying after accepting, another ABI, damaged headers and completions. Its regions are files in --dir, so
// that a second peer started there takes the sessions of the first one over. SIGUSR1 completes what --hold kept,
// SIGUSR2 hangs up on every client but keeps the sessions, SIGTERM stops in an orderly way, SIGKILL is a crash.
#define _GNU_SOURCE
#include "peer_region.h"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static volatile sig_atomic_t let_go, stop, hang_up;

static void on_signal(int number) {
    if (number == SIGUSR1)
        let_go = 1;
    else if (number == SIGUSR2)
        hang_up = 1;
    else
        stop = 1;
}

// ---------------------------------------------------------------- requests

static void wake(struct session *s) {
    fence();  // SYNC POINT cq-waiting
    uint32_t waiting = load(&s->c_hot->cq_waiting);
    if (waiting & REEF_WAIT_FUTEX)
        syscall(SYS_futex, &s->d_hot->cq_tail, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    if (waiting & REEF_WAIT_SOCKET && s->socket >= 0)
        (void)!send(s->socket, "!", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static uint32_t crc_of(const struct session *s, uint32_t first, uint32_t n, const uint8_t *area) {
    uint32_t crc = 0;
    for (uint32_t i = first; i < first + n; i++)
        crc = crc32c_after(crc, area + s->tensor[i].offset, s->tensor[i].size);
    return crc;
}

static void complete(struct session *s, uint32_t index, int32_t status, uint16_t flags) {
    struct reef_d_slot *slot = &s->slot[index];
    uint32_t tail = s->d_hot->cq_tail;
    struct reef_cqe cqe = {.user_data = slot->sqe.user_data,
                           .slot = index,
                           .generation = slot->generation,
                           .sequence = slot->sqe.sequence,
                           .status = status,
                           .flags = flags,
                           .accept_ns = slot->accept_ns,
                           .start_ns = slot->start_ns,
                           .end_ns = now_ns()};
    if (status == 0 && option.payload) {
        const struct reef_model_desc *model = &s->model[slot->sqe.model];
        uint8_t *out = s->d + s->header->d_outputs_offset + index * s->header->d_outputs_stride;
        cqe.flags |= REEF_CQE_PAYLOAD_CRC;
        cqe.payload_crc = crc_of(s, model->first_output, model->outputs, out);
        if (option.damage_output) {
            const struct reef_tensor_desc *last = &s->tensor[model->first_output + model->outputs - 1];
            out[last->offset + last->size - 1] ^= 0x10;
        }
    }
    const char *bad = option.corrupt_cqe ? option.corrupt_cqe : "";
    if (strcmp(bad, "slot") == 0)
        cqe.slot = 0xffffff00u;
    if (strcmp(bad, "generation") == 0)
        cqe.generation++;
    if (strcmp(bad, "sequence") == 0)
        cqe.sequence++;
    if (strcmp(bad, "status") == 0)
        cqe.status = 1;
    cqe.crc = crc32c(&cqe, offsetof(struct reef_cqe, crc));
    if (strcmp(bad, "crc") == 0)
        cqe.crc ^= 0x10000;
    s->cq[tail & (s->header->entries - 1)] = cqe;
    slot->cq_index = tail;
    store(&slot->state, status == 0 ? REEF_SLOT_DONE : status == -ECANCELED ? REEF_SLOT_CANCELLED : REEF_SLOT_REJECTED);
    s->d_hot->stats.completed++;
    if (status < 0)
        s->d_hot->stats.failed++;
    store(&s->d_hot->cq_tail, strcmp(bad, "tail") == 0 ? tail + 1000 : tail + 1);  // SYNC POINT cq-tail
    wake(s);
}

static void run(struct session *s, uint32_t index, uint16_t flags) {
    struct reef_d_slot *slot = &s->slot[index];
    const uint8_t *in = s->c + s->header->c_inputs_offset + index * s->header->c_inputs_stride;
    uint8_t *out = s->d + s->header->d_outputs_offset + index * s->header->d_outputs_stride;
    const struct reef_model_desc *model = &s->model[slot->sqe.model];
    if (option.payload && crc_of(s, model->first_input, model->inputs, in) != slot->sqe.payload_crc) {
        s->d_hot->stats.damaged++;
        complete(s, index, -EILSEQ, flags);
        return;
    }
    if (slot->sqe.model == 0) {
        memcpy(out, in, option.bytes);
    } else {
        int32_t a[6];
        double sum = 0;
        memcpy(a, in, sizeof a);
        for (int i = 0; i < 6; i++)
            sum += a[i];
        memcpy(out + s->tensor[4].offset, &sum, sizeof sum);
        memcpy(out, in + REEF_PAGE, 5);
    }
    complete(s, index, 0, flags);
}

static void quarantine(struct session *s, const char *why) {
    fprintf(stderr, "peer: session %llu quarantined: %s\n", (unsigned long long)s->id, why);
    s->frozen = true;
    for (uint32_t i = 0; i < s->header->slots; i++)
        if (s->slot[i].state == REEF_SLOT_ACCEPTED || s->slot[i].state == REEF_SLOT_RUNNING)
            complete(s, i, -EPROTO, 0);
    store(&s->d_hot->verdict, -EPROTO);
    wake(s);
}

static void cancel(struct session *s, const struct reef_sqe *sqe) {
    struct reef_d_slot *slot = &s->slot[sqe->slot];
    int32_t verdict = -EALREADY;
    if (slot->generation != sqe->generation)
        verdict = -ENOENT;
    else if (slot->state == REEF_SLOT_ACCEPTED)
        verdict = 0;
    // Either order is allowed: the verdict may become visible before or after the completion.
    if (verdict == 0 && sqe->generation % 2)
        complete(s, sqe->slot, -ECANCELED, 0);
    // SYNC POINT cancel-verdict
    store(&slot->cancel_verdict, (uint64_t)(uint32_t)verdict << 32 | (uint32_t)sqe->sequence);
    if (verdict == 0 && sqe->generation % 2 == 0)
        complete(s, sqe->slot, -ECANCELED, 0);
}

static bool anything_running(const struct session *s) {
    for (uint32_t i = 0; i < s->header->slots; i++)
        if (s->slot[i].state == REEF_SLOT_RUNNING)
            return true;
    return false;
}

static void start(struct session *s, uint32_t index) {
    struct reef_d_slot *slot = &s->slot[index];
    slot->start_ns = now_ns();
    slot->attempts++;
    store(&slot->state, REEF_SLOT_RUNNING);
}

static void accept_request(struct session *s, const struct reef_sqe *sqe) {
    struct reef_d_slot *slot = &s->slot[sqe->slot];
    slot->sqe = *sqe;
    slot->accept_ns = now_ns();
    slot->attempts = 0;
    uint64_t both = REEF_SLOT_ACCEPTED | (uint64_t)sqe->generation << 32;
    store((uint64_t *)(void *)&slot->state, both);
    s->d_hot->stats.accepted++;
}

static const char *wrong_with(const struct session *s, const struct reef_sqe *sqe, uint32_t index) {
    if (sqe->crc != crc32c(sqe, offsetof(struct reef_sqe, crc)) || !(sqe->flags & REEF_SQE_CRC))
        return "CRC";
    if ((uint32_t)sqe->sequence != index || sqe->slot >= s->header->slots || sqe->model >= s->header->models)
        return "sequence, slot or model";
    if (sqe->reserved || (sqe->payload_crc && !(sqe->flags & REEF_SQE_PAYLOAD_CRC)) || sqe->flags & ~REEF_SQE_FLAGS ||
        sqe->opcode > REEF_OP_CANCEL)
        return "reserved bits";
    const struct reef_d_slot *slot = &s->slot[sqe->slot];
    if (sqe->opcode == REEF_OP_INFER && (sqe->generation != slot->generation + 1 || slot->state == REEF_SLOT_ACCEPTED ||
                                         slot->state == REEF_SLOT_RUNNING))
        return "generation or a busy slot";
    uint32_t posted = s->d_hot->cq_tail, unread = posted - load(&s->c_hot->cq_head);  // SYNC POINT cq-head
    if (unread > s->header->entries)
        return "cq_head";
    if (sqe->opcode == REEF_OP_INFER && slot->state >= REEF_SLOT_DONE && posted - slot->cq_index <= unread)
        return "a slot whose last completion was not taken";
    return NULL;
}

static bool take(struct session *s) {
    uint32_t tail = load(&s->c_hot->sq_tail);  // SYNC POINT sq-tail
    uint32_t head = s->d_hot->sq_head;
    if (s->frozen || tail == head)
        return false;
    if (tail - head > s->header->entries) {
        quarantine(s, "tail");
        return false;
    }
    struct reef_sqe sqe = s->sq[head & (s->header->entries - 1)];
    const char *wrong = wrong_with(s, &sqe, head);
    if (wrong) {
        quarantine(s, wrong);
        return false;
    }
    if (sqe.opcode == REEF_OP_INFER)
        accept_request(s, &sqe);
    else
        cancel(s, &sqe);
    store(&s->d_hot->sq_head, head + 1);  // SYNC POINT sq-head
    if (sqe.opcode == REEF_OP_CANCEL)
        return true;
    accepted_total++;
    if (option.quarantine_after && accepted_total >= option.quarantine_after) {
        quarantine(s, "on request");
        return true;
    }
    if (option.die_after && accepted_total >= option.die_after)
        kill(getpid(), SIGKILL);
    if (option.hold) {
        if (!anything_running(s))
            start(s, sqe.slot);
        return true;
    }
    start(s, sqe.slot);
    if (!option.delay_us)
        run(s, sqe.slot, 0);
    return true;
}

static void finish_all(struct session *s, uint16_t flags) {
    for (uint32_t i = 0; i < s->header->slots; i++) {
        if (s->slot[i].state == REEF_SLOT_ACCEPTED)
            start(s, i);
        if (s->slot[i].state == REEF_SLOT_RUNNING)
            run(s, i, flags);
    }
}

static void finish_due(struct session *s) {
    for (uint32_t i = 0; i < s->header->slots; i++)
        if (s->slot[i].state == REEF_SLOT_RUNNING && now_ns() >= s->slot[i].start_ns + option.delay_us * 1000)
            run(s, i, 0);
}

// A predecessor's sessions: post what it had finished, run again what it had accepted.
static void adopt(void) {
    struct session *s = sessions;
    for (uint64_t id = FIRST_ID; id < FIRST_ID + 100 && s < sessions + MAX_SESSIONS; id++) {
        struct stat c_stat, d_stat;
        s->c_fd = region_file(id, "c", O_RDWR);
        s->d_fd = region_file(id, "d", O_RDWR);
        if (s->c_fd < 0 || s->d_fd < 0 || fstat(s->c_fd, &c_stat) || fstat(s->d_fd, &d_stat))
            continue;
        s->id = id;
        s->socket = -1;
        map(s, (uint64_t)c_stat.st_size, (uint64_t)d_stat.st_size);
        point(s);
        own(s);
        for (uint32_t i = 0; i < s->header->slots; i++)
            if (s->slot[i].state >= REEF_SLOT_DONE && s->slot[i].cq_index == s->d_hot->cq_tail)
                store(&s->d_hot->cq_tail, s->d_hot->cq_tail + 1);
        if (!option.hold)
            finish_all(s, REEF_CQE_REPLAYED);
        s++;
    }
}

// ---------------------------------------------------------------- the socket

static void answer(int fd, struct session *s, uint32_t pid, int status, const char *text) {
    struct reef_welcome welcome = {.magic = REEF_MAGIC,
                                   .abi_major = (uint16_t)(option.abi ? option.abi : REEF_ABI_MAJOR),
                                   .abi_minor = REEF_ABI_MINOR,
                                   .size = sizeof welcome,
                                   .status = status,
                                   .daemon_epoch = epoch,
                                   .pid = pid};
    strcpy(welcome.version, "peer 1");
    strcpy(welcome.text, text);
    struct iovec part = {.iov_base = &welcome, .iov_len = sizeof welcome};
    union {
        char room[CMSG_SPACE(3 * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    int read_only = -1;
    if (s && status == 0) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", s->d_fd);
        read_only = open(path, O_RDONLY | O_CLOEXEC);
        int fds[3] = {option.wrong_region ? s->d_fd : s->c_fd, read_only, s->doorbell};
        welcome.session_id = s->id;
        struct stat st;
        welcome.c_size = fstat(s->c_fd, &st) ? 0 : (uint64_t)st.st_size;
        welcome.d_size = s->header->d_size;
        if (option.corrupt && strcmp(option.corrupt, "d-size") == 0)
            welcome.d_size += REEF_PAGE;
        message.msg_control = control.room;
        message.msg_controllen = CMSG_SPACE(option.fds * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(option.fds * sizeof(int));
        memcpy(CMSG_DATA(header), fds, option.fds * sizeof(int));
    }
    if (sendmsg(fd, &message, MSG_NOSIGNAL) < 0)
        perror("peer: sendmsg");
    if (read_only >= 0)
        close(read_only);
}

static struct session *reclaimed(const struct reef_hello *hello, int c_fd) {
    struct stat a, b;
    for (struct session *s = sessions; s < sessions + MAX_SESSIONS; s++)
        if (s->open && s->id == hello->session_id && fstat(c_fd, &a) == 0 && fstat(s->c_fd, &b) == 0 &&
            a.st_ino == b.st_ino && a.st_dev == b.st_dev)
            return s;
    return NULL;
}

static void serve(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (option.silent)
        return;
    if (option.hang_up) {
        close(fd);
        return;
    }
    struct reef_hello hello = {0};
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec part = {.iov_base = &hello, .iov_len = sizeof hello};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
    ssize_t n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    int c_fd = -1;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (n > 0 && header && header->cmsg_type == SCM_RIGHTS)
        memcpy(&c_fd, CMSG_DATA(header), sizeof c_fd);
    if (n != sizeof hello || hello.magic != REEF_MAGIC || option.abi) {
        answer(fd, NULL, 0, -EPROTONOSUPPORT, "another ABI");
    } else if (hello.request == REEF_REQUEST_PROBE) {
        answer(fd, NULL, (uint32_t)getpid(), 0, "");
    } else if (hello.request == REEF_REQUEST_OPEN && option.refuse) {
        answer(fd, NULL, 0, -(int)option.refuse, "refused on purpose");
    } else if (hello.request == REEF_REQUEST_RECLAIM && option.refuse_reclaim) {
        answer(fd, NULL, 0, -(int)option.refuse_reclaim, "not reclaimed on purpose");
    } else if (hello.request == REEF_REQUEST_OPEN && strcmp(hello.task, "test") != 0) {
        answer(fd, NULL, 0, -ENOENT, "no such task; there is: test");
    } else {
        struct session *s = hello.request == REEF_REQUEST_OPEN ? create(hello.task)
                            : c_fd >= 0                        ? reclaimed(&hello, c_fd)
                                                               : NULL;
        if (s) {
            s->socket = fd;
            answer(fd, s, (uint32_t)getpid(), 0, "");
            fd = -1;
        } else {
            answer(fd, NULL, 0, -ESTALE, "no such session");
        }
    }
    if (c_fd >= 0)
        close(c_fd);
    if (fd >= 0)
        close(fd);
}

static void drop(struct session *s) {
    char path[PATH_MAX];
    const char *suffix[] = {"c", "d"};
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%llu.%s", option.dir, (unsigned long long)s->id, suffix[i]);
        unlink(path);
    }
    close(s->socket);
    close(s->doorbell);
    close(s->c_fd);
    close(s->d_fd);
    s->open = false;  // its addresses stay: the robust list runs through them
}

// ---------------------------------------------------------------- the loop

static bool turn(void) {
    bool busy = false, finish = let_go, leave = hang_up;
    if (leave)
        hang_up = 0;
    if (finish)
        let_go = 0;  // before the work: a signal during it must not be lost
    for (struct session *s = sessions; s < sessions + MAX_SESSIONS; s++) {
        if (!s->open)
            continue;
        if (leave && s->socket >= 0) {
            close(s->socket);
            s->socket = -1;
        }
        while (take(s))
            busy = true;
        uint32_t announced = load(&s->c_hot->announce);
        s->d_hot->stats.preempted += announced - s->announced;  // where the tests look for it
        s->announced = announced;
        if (option.delay_us)
            finish_due(s);
        if (finish)
            finish_all(s, 0);
    }
    return busy;
}

static void set_need_wakeup(uint32_t value) {
    for (struct session *s = sessions; s < sessions + MAX_SESSIONS; s++)
        if (s->open)
            store(&s->d_hot->need_wakeup, value);
    fence();  // SYNC POINT need-wakeup
}

// A session adopted and not yet reclaimed: its client cannot ring.
static bool anyone_without_doorbell(void) {
    for (struct session *s = sessions; s < sessions + MAX_SESSIONS; s++)
        if (s->open && s->socket < 0)
            return true;
    return false;
}

static void look_at_descriptors(int listener, const struct timespec *timeout) {
    struct pollfd fds[1 + 2 * MAX_SESSIONS] = {{.fd = listener, .events = POLLIN}};
    for (int i = 0; i < MAX_SESSIONS; i++) {
        fds[1 + 2 * i] = (struct pollfd){.fd = sessions[i].open ? sessions[i].doorbell : -1, .events = POLLIN};
        fds[2 + 2 * i] = (struct pollfd){.fd = sessions[i].open ? sessions[i].socket : -1, .events = POLLIN};
    }
    sigset_t none;
    sigemptyset(&none);
    if (ppoll(fds, 1 + 2 * MAX_SESSIONS, timeout, &none) <= 0)
        return;
    for (int i = 0; i < MAX_SESSIONS; i++) {
        uint64_t count;
        if (fds[1 + 2 * i].revents)
            (void)!read(sessions[i].doorbell, &count, sizeof count);
        if (fds[2 + 2 * i].revents)
            drop(&sessions[i]);
    }
    if (fds[0].revents)
        serve(listener);
}

static void loop(int listener) {
    const struct timespec no_time = {0}, slice = {.tv_nsec = 200000};
    for (uint32_t n = 1; !stop; n++) {
        if (turn())
            continue;
        if (option.spin) {
            if (n % 4096 == 0)
                look_at_descriptors(listener, &no_time);
            __builtin_ia32_pause();
            continue;
        }
        set_need_wakeup(1);
        if (!turn())
            look_at_descriptors(listener, option.delay_us || anyone_without_doorbell() ? &slice : NULL);
        set_need_wakeup(0);
    }
    for (struct session *s = sessions; s < sessions + MAX_SESSIONS; s++) {
        if (s->open) {
            store(&s->d_hot->verdict, -ESHUTDOWN);
            wake(s);
            drop(s);
        }
    }
}

static bool number(const char *arg, const char *name, uint32_t *value) {
    size_t length = strlen(name);
    if (strncmp(arg, name, length) != 0 || (arg[length] && arg[length] != '='))
        return false;
    *value = arg[length] ? (uint32_t)strtoul(arg + length + 1, NULL, 10) : 1;
    return true;
}

static bool text(const char *arg, const char *name, const char **value) {
    size_t length = strlen(name);
    if (strncmp(arg, name, length) != 0 || arg[length] != '=')
        return false;
    *value = arg + length + 1;
    return true;
}

static void parse(const char *arg) {
    uint32_t delay = 0;
    if (number(arg, "--delay-us", &delay))
        option.delay_us = delay;
    else if (!(text(arg, "--socket", &option.socket) || text(arg, "--dir", &option.dir) ||
               text(arg, "--corrupt", &option.corrupt) || text(arg, "--corrupt-cqe", &option.corrupt_cqe) ||
               number(arg, "--slots", &option.slots) || number(arg, "--bytes", &option.bytes) ||
               number(arg, "--policy", &option.policy) || number(arg, "--hold", &option.hold) ||
               number(arg, "--spin", &option.spin) || number(arg, "--die-after", &option.die_after) ||
               number(arg, "--abi", &option.abi) || number(arg, "--refuse", &option.refuse) ||
               number(arg, "--refuse-reclaim", &option.refuse_reclaim) || number(arg, "--silent", &option.silent) ||
               number(arg, "--fds", &option.fds) || number(arg, "--quarantine-after", &option.quarantine_after) ||
               number(arg, "--read-only", &option.read_only) || number(arg, "--hang-up", &option.hang_up) ||
               number(arg, "--first", &option.first) || number(arg, "--ready", &option.ready) ||
               number(arg, "--wrong-region", &option.wrong_region) || number(arg, "--payload", &option.payload) ||
               number(arg, "--damage-output", &option.damage_output)))
        fail(arg);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        parse(argv[i]);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!option.socket || !option.dir || strlen(option.socket) + 1 >= sizeof address.sun_path)
        fail("--socket and --dir are needed");
    // Whoever sees the name can connect: it is put in place when somebody listens.
    sprintf(address.sun_path, "%s~", option.socket);

    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    sigaddset(&signals, SIGUSR2);
    sigaddset(&signals, SIGTERM);
    if (!option.spin)
        sigprocmask(SIG_BLOCK, &signals, NULL);  // delivered inside ppoll, so that none is lost
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    sigaction(SIGTERM, &action, NULL);

    epoch = now_ns();
    arena = mmap(NULL, MAX_SESSIONS * STRIDE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena == MAP_FAILED)
        fail("mmap");
    robust.list.next = &robust.list;
    robust.futex_offset = REEF_PAGE + REEF_PAGE + offsetof(struct reef_d_hot, liveness);
    syscall(SYS_set_robust_list, &robust, sizeof robust);
    for (int i = 0; i < MAX_SESSIONS; i++)
        sessions[i].socket = -1;
    adopt();

    unlink(address.sun_path);
    int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 16) ||
        rename(address.sun_path, option.socket))
        fail(option.socket);
    if (option.ready && write((int)option.ready, &(uint64_t){1}, 8) != 8)
        fail("ready");
    loop(listener);
    unlink(option.socket);
    return 0;
}
