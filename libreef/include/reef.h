/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reef.h: put inference requests into a ring that reefd reads, without a copy.
 *
 * A request is a slot: loan it, fill its inputs in place, submit, wait, read its outputs in place, then submit it again
 * or release it. Slots are credits: as many requests can be in flight as the task's manifest has slots.
 *
 *     reef_session *session;
 *     struct reef_open_params params = {.size = sizeof params, .task = "obstacle-detection"};
 *     int rc = reef_open(&params, &session);
 *     struct reef_loan loan;
 *     rc = reef_loan(session, 0, -1, &loan);
 *     fill(reef_input(session, &loan, 0));
 *     struct reef_completion done;
 *     rc = reef_infer(session, &loan, NULL, -1, &done);
 *     read(reef_output(session, &loan, 0));
 *     reef_release(session, &loan);
 *     reef_close(session);
 *
 * Every function that can fail returns 0 or a positive result, or a negative errno; errno itself is not touched and
 * nothing aborts. A session is used by one thread at a time, and by the process that opened it: after fork() every call
 * of the child returns -EINVAL (reef_close unmaps and frees, nothing else). Timeouts are nanoseconds from now:
 * 0 does not wait, -1 waits without end. There is no global state.
 *
 * Errors that any waiting call may return
 *   -EAGAIN     timeout 0 and nothing there        -ETIMEDOUT   the time is over
 *   -ENOTCONN   the daemon is gone (REEF_OPEN_NO_RECONNECT; otherwise the call waits for its successor, which takes the
 *               session over and completes every accepted request)
 *   -ESTALE     the daemon came back without this session (its regions were gone): close and open again
 *   -EPROTO     the daemon quarantined the session for a protocol error; -ESHUTDOWN: it was stopped
 *   -EBADMSG    a completion that fails its checks (CRC, slot, generation): close and open again
 *   -EINVAL     a wrong argument, or a process that forked
 * reef_strerror() says what each code means here; reef_reason() gives the daemon's own words.
 */
#ifndef REEF_H
#define REEF_H

#include <reef_abi.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#if defined(__cplusplus) && defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow" /* a structure and a function of one name, as stat has it */
#endif

#define REEF_API __attribute__((visibility("default")))

typedef struct reef_session reef_session;

/* ---------------------------------------------------------------- daemon and session */

struct reef_daemon_info {
    uint16_t abi_major;
    uint16_t abi_minor;
    uint32_t pid;
    uint64_t daemon_epoch;
    char version[64];
};

/* Asks who listens. `socket` NULL: $REEF_SOCKET, else /run/reefd/reef.sock. Waits up to timeout_ns for a daemon.
 * 0; -ENOENT or -ECONNREFUSED: nobody there; -ETIMEDOUT; -EPROTONOSUPPORT: another ABI (info is filled). */
REEF_API int reef_probe(const char *socket, int64_t timeout_ns, struct reef_daemon_info *info);

enum {
    REEF_OPEN_NO_RECONNECT = 1u << 0 /* waiting calls return -ENOTCONN when the daemon dies */
};

struct reef_open_params {
    size_t size;        /* sizeof(struct reef_open_params): older callers keep working */
    const char *socket; /* NULL: $REEF_SOCKET, else /run/reefd/reef.sock */
    const char *task;   /* the manifest's `task` */
    int64_t timeout_ns; /* how long to wait for a daemon that is not there yet; 0: not at all, -1: without end */
    int64_t spin_ns;    /* how long reef_wait spins before it sleeps; 0: not at all (default), -1: always */
    uint32_t flags;     /* REEF_OPEN_*; others are refused */
    char *reason;       /* NULL, or room for REEF_TEXT_MAX bytes: the daemon's words when it refuses */
};

/* -ENOENT no such task, or nobody there; -EACCES the manifest does not allow this user; -EPROTONOSUPPORT another ABI
 * (reason names both versions); -EAGAIN or -EMFILE too many sessions; -ENOMEM. */
REEF_API int reef_open(const struct reef_open_params *params, reef_session **session);

/* Gives everything back: requests in flight are cancelled, slots freed, memory unmapped, descriptors closed.
 * NULL is allowed. Loans and pointers from this session are dead afterwards, unless reef_hold() says otherwise. */
REEF_API void reef_close(reef_session *session);

/* Readable when a completion may be there, the daemon died, or it is time to look for its successor. The number stays
 * the same over a reconnect, and so do registrations with poll, select and epoll. Arm it with reef_arm() before each
 * sleep; never read from it. */
REEF_API int reef_fd(const reef_session *session);

/* Asks for a byte on reef_fd() at the next completion. 0: armed, poll now; 1: a completion is already there. */
REEF_API int reef_arm(reef_session *session);

/* What the daemon last said when it refused or dropped this session; "" if nothing. */
REEF_API const char *reef_reason(const reef_session *session);

/* A mapping outlives its session while somebody holds it (numpy arrays that escaped). Both may be called from any
 * thread, after reef_close() too; the last release unmaps. */
REEF_API void *reef_hold(reef_session *session);
REEF_API void reef_unhold(void *mapping);

/* ---------------------------------------------------------------- models of the task */

struct reef_tensor_info {
    const char *name; /* lives as long as the session */
    uint32_t dtype;   /* enum reef_dtype */
    uint32_t rank;
    const uint64_t *shape; /* rank numbers */
    uint64_t size;         /* bytes */
};

struct reef_model_info {
    const char *name;
    uint32_t inputs;
    uint32_t outputs;
};

REEF_API int reef_model_count(const reef_session *session);
REEF_API int reef_model_find(const reef_session *session, const char *name); /* index, or -ENOENT */
REEF_API int reef_model_info(const reef_session *session, uint32_t model, struct reef_model_info *info);
REEF_API int reef_input_info(const reef_session *session, uint32_t model, uint32_t input,
                             struct reef_tensor_info *info);
REEF_API int reef_output_info(const reef_session *session, uint32_t model, uint32_t output,
                              struct reef_tensor_info *info);
REEF_API const struct reef_header *reef_header(const reef_session *session);

/* ---------------------------------------------------------------- requests */

struct reef_loan {
    uint32_t slot;
    uint32_t model;
    uint32_t generation; /* set by submit: names the request in flight or last done */
    uint32_t ticket;     /* libreef's: tells this loan of the slot from earlier ones */
};

/* Takes a free slot for `model`. When all are in use the manifest's `queue` decides:
 *   fail    -EAGAIN at once.
 *   block   sleeps until there is a completion that was not taken yet, then -EAGAIN: take it, release its loan and loan
 *           again. -ETIMEDOUT when the time is over first; -EDEADLK when no request is in flight, so that waiting
 *           could not help: the caller holds every slot.
 *   latest  cancels this session's oldest request that has not started, waits for that within timeout_ns and takes its
 *           slot over: the loan it was submitted with is void, its completion (-ECANCELED) is delivered as always.
 *           -EAGAIN: nothing could be cancelled, or timeout 0 (the slot is free soon), or completions were not taken. */
REEF_API int reef_loan(reef_session *session, uint32_t model, int64_t timeout_ns, struct reef_loan *loan);

/* The slot's tensors, in shared memory, page-aligned. NULL: no such tensor, or a loan that is not held. Inputs may be
 * written while the request is not in flight; outputs read once it is complete. */
REEF_API void *reef_input(const reef_session *session, const struct reef_loan *loan, uint32_t input);
REEF_API const void *reef_output(const reef_session *session, const struct reef_loan *loan, uint32_t output);

/* Gives the slot back. -EBUSY: its request is in flight (cancel or wait first). */
REEF_API int reef_release(reef_session *session, struct reef_loan *loan);

/* The early doorbell of a real-time task: a request follows within milliseconds. Cheap, and never needed. */
REEF_API int reef_announce(reef_session *session);

struct reef_options { /* all zero: the task's defaults */
    uint64_t user_data;
    uint64_t data_id;
    uint64_t deadline_ns; /* absolute, CLOCK_MONOTONIC */
    uint32_t flags;       /* REEF_SQE_LATEST */
    uint32_t reserved;
};

/* Hands the loan to the daemon. Never waits: while the daemon is away its successor finds the request in the ring.
 * -EBUSY: already in flight; -EAGAIN: the ring is full of cancels, or completions were not taken. `options` may be NULL.
 * A request is in flight until its completion was returned by peek, wait or infer, or marked seen. */
REEF_API int reef_submit(reef_session *session, struct reef_loan *loan, const struct reef_options *options);

/* n loans, one doorbell; all or none. options: NULL or n of them. */
REEF_API int reef_submit_batch(reef_session *session, struct reef_loan *loans, const struct reef_options *options,
                               uint32_t n);

enum {
    /* With -EILSEQ, beside the REEF_CQE_* of the daemon: which way the tensors were damaged. */
    REEF_DAMAGED_INPUTS = 1u << 16, /* the daemon found other inputs than were submitted */
    REEF_DAMAGED_OUTPUTS = 1u << 17 /* this side found other outputs than the daemon computed */
};

struct reef_completion {
    uint64_t user_data;
    uint32_t slot;
    uint32_t generation;
    /* 0; -ETIME deadline passed in the queue; -ECANCELED; -EIO the device failed; -ESHUTDOWN; -EILSEQ inputs or outputs
     * did not arrive as they were sent (manifests with payload_crc:), flags say which: submit again */
    int32_t status;
    uint32_t flags; /* REEF_CQE_*, REEF_DAMAGED_* */
    uint32_t preemptions;
    uint32_t reserved;
    uint64_t accept_ns;
    uint64_t start_ns;
    uint64_t end_ns;
};

/* The oldest completion that was not marked seen. peek: 0 or -EAGAIN, never waits. wait: sleeps (after spin_ns). */
REEF_API int reef_peek(reef_session *session, struct reef_completion *completion);
REEF_API int reef_wait(reef_session *session, int64_t timeout_ns, struct reef_completion *completion);
/* Consumes the oldest completion; the next peek gives the next one. */
REEF_API void reef_seen(reef_session *session);

/* 0: it will complete with -ECANCELED; -EALREADY: too late, it is running (real-time) or done; -ENOENT: that loan has
 * no request in flight. The request completes exactly once in every case. Waits for the verdict at most timeout_ns. */
REEF_API int reef_cancel(reef_session *session, const struct reef_loan *loan, int64_t timeout_ns);

/* submit, wait for this very request, seen. Completions of other requests stay in order for peek and wait.
 * Returns the request's status, or the error of waiting. */
REEF_API int reef_infer(reef_session *session, struct reef_loan *loan, const struct reef_options *options,
                        int64_t timeout_ns, struct reef_completion *completion);

/* ---------------------------------------------------------------- the rest */

/* As the daemon counts, but for `damaged`: there the outputs that failed their CRC here are added. */
REEF_API int reef_stats(const reef_session *session, struct reef_stats *stats);
REEF_API const char *reef_strerror(int error); /* of a negative errno; never NULL */
REEF_API const char *reef_version(void);

#if defined(__cplusplus) && defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
#ifdef __cplusplus
}
#endif
#endif
