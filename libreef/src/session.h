/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.h: what the rooms of libreef share. Private to the library.
 *
 *   region.c   checks and maps the two regions, describes the models
 *   crc32c.c   CRC-32C of entries, headers and tensors
 *   connect.c  the session socket: probe, handshake, coming back to the daemon's successor
 *   session.c  open and close, sleeping and being woken, event loops, words for errors
 *   ring.c     requests: loan, submit, completions, cancel
 */
#ifndef REEF_SESSION_H
#define REEF_SESSION_H

#include <errno.h>
#include <reef.h>
#include <stdarg.h>
#include <stdbool.h>
#include <time.h>

#define FOREVER UINT64_MAX

/* Where the mappings are and who holds them. Lives in a page that fork() wipes in the child, so that a child finds
 * magic == 0 without a system call, and finds no addresses that it could unmap: the regions were not inherited. */
struct mapping {
    uint32_t magic;
    uint32_t references;
    void *c;
    size_t c_size;
    const void *d;
    size_t d_size;
};

enum slot_state {
    SLOT_FREE,
    SLOT_LOANED,
    SLOT_FLYING, /* submitted; its completion was not copied out of the ring yet */
    SLOT_LANDED  /* its completion is in the stash, not yet shown to the caller */
};

struct slot {
    uint32_t state;      /* enum slot_state */
    uint32_t generation; /* of the last request submitted */
    uint32_t ticket;     /* of the last loan */
    uint32_t model;
    uint64_t sequence; /* of the last request submitted */
    bool dropped;      /* queue policy LATEST wants it from its holder: free once it is cancelled */
};

enum link_state {
    LINK_UP,
    LINK_DOWN, /* no daemon; the next attempt is at retry_ns */
    LINK_ASKED /* connected to a successor that has not answered yet */
};

struct reef_session {
    struct mapping *mapping;

    struct reef_c_hot *c;
    const struct reef_d_hot *d;
    struct reef_sqe *sq;
    const struct reef_cqe *cq;
    struct reef_c_slot *c_slots;
    const struct reef_d_slot *d_slots;
    uint32_t entries, mask;
    uint32_t slots;
    uint32_t models, tensors;
    uint32_t (*crc)(uint32_t crc, const void *data, size_t size); /* crc: of what goes before; 0: nothing */

    uint64_t sequence; /* of the next SQE; its low half is sq_tail */
    uint32_t sq_head;  /* as last read */
    uint32_t cq_head;
    uint32_t waiting; /* REEF_WAIT_*, as last written to cq_waiting */
    uint32_t flying;  /* requests in SLOT_FLYING */
    uint64_t epoch;   /* the daemon we are linked to, and its engine's thread */
    uint32_t owner;
    int doorbell;
    uint16_t sqe_flags; /* REEF_SQE_* that every request carries */
    uint64_t damaged;   /* outputs that failed their CRC */
    int error;          /* the session ended with it: every later call returns it */
    int submit_error;   /* 0, or why this libreef must not submit: a feature it does not know */
    int64_t spin_ns;
    struct slot *slot; /* slots of them */

    /* Completions copied out of the ring, oldest first: entries of them, free-running indices. Submitting stops before
     * requests in flight and completions not taken could be more than that. */
    struct reef_completion *stash;
    uint32_t stash_head, stash_tail;

    uint8_t *inputs;
    const uint8_t *outputs;
    size_t inputs_stride, outputs_stride;
    struct reef_model_desc *model; /* private copies: the originals are in shared memory */
    struct reef_tensor_desc *tensor;
    struct reef_header header;

    enum link_state link;
    uint32_t flags; /* REEF_OPEN_* */
    bool waitv;     /* the kernel has futex_waitv */
    int socket;     /* -1 while the link is down */
    int asking;     /* socket of the handshake under way; -1 */
    int c_fd;       /* handed back to a successor */
    int poll_fd;    /* epoll: the socket, and the timer for attempts */
    int timer_fd;
    uint64_t retry_ns;
    uint64_t backoff_ns;
    char path[108];
    char reason[REEF_TEXT_MAX];
};

static inline uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline struct timespec timespec_of(uint64_t ns) {
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
}

static inline uint64_t deadline_of(int64_t timeout_ns) {
    return timeout_ns < 0 ? FOREVER : now_ns() + (uint64_t)timeout_ns;
}

static inline bool usable(const struct reef_session *session) { return session && session->mapping->magic; }

__attribute__((format(printf, 2, 3))) static inline void explain(char *reason, const char *format, ...) {
    va_list args;
    va_start(args, format);
    __builtin_vsnprintf(reason, REEF_TEXT_MAX, format, args);
    va_end(args);
}

/* ---- crc32c.c */
typedef uint32_t (*crc_function)(uint32_t crc, const void *data, size_t size);
crc_function crc32c_best(void);
uint32_t crc32c_table(uint32_t crc, const void *data, size_t size);
/* ---- region.c */
/* Maps both regions and fills the session from D's header, once every number in it was checked. */
int region_map(struct reef_session *session, const struct reef_welcome *welcome, int c_fd, int d_fd);
void mapping_drop(struct mapping *mapping);

/* ---- connect.c */
enum { WELCOME_C, WELCOME_D, WELCOME_DOORBELL, WELCOME_FDS };
int socket_path(const char *given, char path[108], char *reason);
/* Connects, asks and waits for the answer. Returns the socket; fds get the descriptors of OPEN, else -1. */
int handshake(const char *path, const struct reef_hello *hello, uint64_t deadline, struct reef_welcome *welcome,
              int fds[WELCOME_FDS], char *reason);
void close_fds(int *fds, int n);
/* From now on the session belongs to the daemon that sent this. */
void link_follow(struct reef_session *session, const struct reef_welcome *welcome);
void link_lost(struct reef_session *session);
/* One step towards the successor, never waiting. 0: under way or done; otherwise the session's error. */
int link_step(struct reef_session *session);

/* ---- session.c */
/* Nothing is in the ring: is there still somebody to fill it? 0, or the error for the caller. */
int session_check(struct reef_session *session);
/* Sleeps until the ring has a completion: 0, or an error of waiting. */
int await_completion(struct reef_session *session, uint64_t deadline);
/* Sleeps until the ring has a completion, something happened to the daemon, or until_ns. */
void sleep_once(struct reef_session *session, uint64_t until_ns);
void ring_doorbell(struct reef_session *session);

/* ---- ring.c */
/* Copies every completion out of the ring into the stash, checking each. */
int pull(struct reef_session *session);

#endif
