// SPDX-License-Identifier: Apache-2.0
// harness.h: what every test program of libreef needs. One program shows one behaviour: exit 0 passed, 1 failed, 77 skipped.
//
// The environment configures a run, so that each program runs in every configuration:
//   PEER                the program that plays the daemon
//   REEF_TEST_DIR       a directory of its own
//   REEF_TEST_SPIN      both sides spin before they sleep
//   REEF_TEST_NO_WAITV  the kernel refuses futex_waitv (a seccomp filter says ENOSYS), as one before 5.16 does
#ifndef HARNESS_H
#define HARNESS_H
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <reef.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MS 1000000ll
#define SECOND 1000000000ll
#define LONG_TIME (60 * SECOND)

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #condition);                              \
            finish(1);                                                                                                 \
        }                                                                                                              \
    } while (0)

#define EQUAL(left, right)                                                                                             \
    do {                                                                                                               \
        long long left_ = (long long)(left), right_ = (long long)(right);                                              \
        if (left_ != right_) {                                                                                         \
            fprintf(stderr, "%s:%d: %s is %lld, %s is %lld\n", __FILE__, __LINE__, #left, left_, #right, right_);      \
            finish(1);                                                                                                 \
        }                                                                                                              \
    } while (0)

#define UNUSED __attribute__((unused))

static pid_t peer_pid;
static int peer_up = -1;  // an eventfd that the peer writes when it listens
static char socket_name[100];

UNUSED static void peer_signal(int number) {
    if (peer_pid > 0)
        kill(peer_pid, number);
}

UNUSED static void peer_kill(void) {
    peer_signal(SIGKILL);
    if (peer_pid > 0)
        waitpid(peer_pid, NULL, 0);
    peer_pid = 0;
}

// Waits until the peer has died by itself (--die-after).
UNUSED static void peer_dead(void) {
    waitpid(peer_pid, NULL, 0);
    peer_pid = 0;
}

__attribute__((noreturn)) UNUSED static void finish(int code) {
    peer_kill();
    exit(code);
}

UNUSED static const char *need(const char *name) {
    const char *value = getenv(name);
    if (!value) {
        fprintf(stderr, "%s is not set: run this through `pytest tests/libreef`\n", name);
        finish(77);
    }
    return value;
}

UNUSED static bool spinning(void) { return getenv("REEF_TEST_SPIN") != NULL; }

UNUSED static void nap(long long ns) {
    nanosleep(&(struct timespec){.tv_sec = ns / SECOND, .tv_nsec = ns % SECOND}, NULL);
}

UNUSED static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * (uint64_t)SECOND + (uint64_t)t.tv_nsec;
}

UNUSED static void peer_spawn(const char *const *options) {
    char directory[200], socket[120], ready[40];
    const char *argv[16] = {need("PEER"), directory, socket, ready};
    if (peer_up >= 0)
        close(peer_up);
    peer_up = eventfd(0, 0);
    snprintf(directory, sizeof directory, "--dir=%s", need("REEF_TEST_DIR"));
    snprintf(socket, sizeof socket, "--socket=%s", socket_name);
    snprintf(ready, sizeof ready, "--ready=%d", peer_up);
    int n = 4;
    if (spinning())
        argv[n++] = "--spin";
    while (*options)
        argv[n++] = *options++;
    peer_pid = fork();
    if (peer_pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execv(argv[0], (char **)argv);
        _exit(2);
    }
}

UNUSED static void peer_ready(void) {
    uint64_t count;
    EQUAL(read(peer_up, &count, sizeof count), 8);
}

// Starts a peer with these options and waits for it: START_PEER() or START_PEER("--slots=2", "--hold").
#define START_PEER(...)                                                                                                \
    do {                                                                                                               \
        peer_spawn((const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL});                                            \
        peer_ready();                                                                                                  \
    } while (0)

UNUSED static void refuse_waitv(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 449, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
        fprintf(stderr, "seccomp filters are not allowed here; run where they are (not inside a sandbox)\n");
        finish(77);
    }
}

UNUSED static void begin(void) {
    if (getenv("REEF_TEST_NO_WAITV"))
        refuse_waitv();
    snprintf(socket_name, sizeof socket_name, "%s/s", need("REEF_TEST_DIR"));
}

UNUSED static struct reef_open_params params(uint32_t flags) {
    return (struct reef_open_params){.size = sizeof(struct reef_open_params),
                                     .socket = socket_name,
                                     .task = "test",
                                     .timeout_ns = LONG_TIME,
                                     .spin_ns = spinning() ? MS : 0,
                                     .flags = flags};
}

UNUSED static reef_session *open_session(uint32_t flags) {
    reef_session *session = NULL;
    char reason[REEF_TEXT_MAX] = "";
    struct reef_open_params given = params(flags);
    given.reason = reason;
    int rc = reef_open(&given, &session);
    if (rc < 0)
        fprintf(stderr, "reef_open: %d %s\n", rc, reason);
    EQUAL(rc, 0);
    return session;
}

UNUSED static struct reef_loan loan_of(reef_session *session, uint32_t model) {
    struct reef_loan loan;
    EQUAL(reef_loan(session, model, 0, &loan), 0);
    return loan;
}

// Fills the echo model's input with something that depends on seed, and says whether the output is that.
UNUSED static void fill(reef_session *session, const struct reef_loan *loan, uint32_t seed) {
    struct reef_tensor_info info;
    EQUAL(reef_input_info(session, 0, 0, &info), 0);
    uint8_t *input = (uint8_t *)reef_input(session, loan, 0);
    CHECK(input);
    for (uint64_t i = 0; i < info.size; i++)
        input[i] = (uint8_t)(seed * 31 + i * 7 + 1);
}

UNUSED static bool echoed(reef_session *session, const struct reef_loan *loan, uint32_t seed) {
    struct reef_tensor_info info;
    EQUAL(reef_output_info(session, 0, 0, &info), 0);
    const uint8_t *output = (const uint8_t *)reef_output(session, loan, 0);
    CHECK(output);
    for (uint64_t i = 0; i < info.size; i++)
        if (output[i] != (uint8_t)(seed * 31 + i * 7 + 1))
            return false;
    return true;
}

UNUSED static void round_trip(reef_session *session, uint32_t seed) {
    struct reef_loan loan = loan_of(session, 0);
    fill(session, &loan, seed);
    EQUAL(reef_infer(session, &loan, NULL, LONG_TIME, NULL), 0);
    CHECK(echoed(session, &loan, seed));
    EQUAL(reef_release(session, &loan), 0);
}

#endif
