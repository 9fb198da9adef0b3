// SPDX-License-Identifier: Apache-2.0
// The simplest possible round trips between two processes, to compare reefd's ring with: a shared word that both sides
// watch, an eventfd there and a futex back, and a unix-domain socket.
#include "ring.h"

#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WARM_UP = 200 };

struct shared {
    _Alignas(128) _Atomic uint32_t ping;
    _Alignas(128) _Atomic uint32_t pong;
    int doorbell;    // eventfd
    int sockets[2];  // the peer has [1]
};

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void futex_wait(_Atomic uint32_t* word, uint32_t value) {
    syscall(SYS_futex, word, FUTEX_WAIT, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t* word) { syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0); }

// Runs answer(shared, i) in a child and ask(shared, i) here, for i = 1 .. n.
static void ping_pong(uint32_t rounds, uint32_t* times, int peer_cpu, void (*ask)(struct shared*, uint32_t),
                      void (*answer)(struct shared*, uint32_t)) {
    struct shared* shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    check(shared != MAP_FAILED, "mmap");
    shared->doorbell = eventfd(0, EFD_CLOEXEC);
    check(shared->doorbell >= 0, "eventfd");
    check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, shared->sockets) == 0, "socketpair");

    const pid_t peer = fork();
    check(peer >= 0, "fork");
    if (peer == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pin_to(peer_cpu);
        for (uint32_t i = 1; i <= WARM_UP + rounds; i++) {
            answer(shared, i);
        }
        _exit(0);
    }
    for (uint32_t i = 1; i <= WARM_UP; i++) {
        ask(shared, i);
    }
    for (uint32_t i = 0; i < rounds; i++) {
        const uint64_t start = now_ns();
        ask(shared, WARM_UP + 1 + i);
        times[i] = (uint32_t)(now_ns() - start);
    }
    check(waitpid(peer, NULL, 0) == peer, "waitpid");
    close(shared->doorbell);
    close(shared->sockets[0]);
    close(shared->sockets[1]);
    munmap(shared, sizeof *shared);
}

static void spin_ask(struct shared* shared, uint32_t i) {
    atomic_store_explicit(&shared->ping, i, memory_order_release);
    while (atomic_load_explicit(&shared->pong, memory_order_acquire) != i) {
        relax();
    }
}

static void spin_answer(struct shared* shared, uint32_t i) {
    while (atomic_load_explicit(&shared->ping, memory_order_acquire) != i) {
        relax();
    }
    atomic_store_explicit(&shared->pong, i, memory_order_release);
}

static void eventfd_ask(struct shared* shared, uint32_t i) {
    const uint64_t one = 1;
    check(write(shared->doorbell, &one, sizeof one) == sizeof one, "write");
    uint32_t seen;
    while ((seen = atomic_load_explicit(&shared->pong, memory_order_acquire)) != i) {
        futex_wait(&shared->pong, seen);
    }
}

static void eventfd_answer(struct shared* shared, uint32_t i) {
    uint64_t count;
    check(read(shared->doorbell, &count, sizeof count) == sizeof count, "read");
    atomic_store_explicit(&shared->pong, i, memory_order_release);
    futex_wake(&shared->pong);
}

static void socket_ask(struct shared* shared, uint32_t i) {
    uint32_t message[16] = {i};
    check(send(shared->sockets[0], message, sizeof message, 0) == sizeof message, "send");
    check(recv(shared->sockets[0], message, sizeof message, 0) == sizeof message && message[0] == i, "recv");
}

static void socket_answer(struct shared* shared, uint32_t i) {
    uint32_t message[16];
    check(recv(shared->sockets[1], message, sizeof message, 0) == sizeof message && message[0] == i, "recv");
    check(send(shared->sockets[1], message, sizeof message, 0) == sizeof message, "send");
}

void raw_spin(uint32_t rounds, uint32_t* times, int peer_cpu) {
    ping_pong(rounds, times, peer_cpu, spin_ask, spin_answer);
}

void raw_eventfd_futex(uint32_t rounds, uint32_t* times, int peer_cpu) {
    ping_pong(rounds, times, peer_cpu, eventfd_ask, eventfd_answer);
}

void unix_socket(uint32_t rounds, uint32_t* times, int peer_cpu) {
    ping_pong(rounds, times, peer_cpu, socket_ask, socket_answer);
}
