/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reef_abi.h: the layout of the two shared-memory regions of a session and the messages of the session socket.
 *
 * This is the one place where the layout is defined. libreef and reefd both include it and know nothing else of each
 * other. Every structure is fixed-size, naturally aligned, little-endian and free of pointers. Every word has exactly
 * one writer: region C is written by the client, region D by the daemon (the client maps D read-only).
 *
 * Region C (client writes)              Region D (daemon writes)
 *   0      struct reef_c_hot              0      struct reef_header
 *   4096   SQ: entries x reef_sqe         4096   struct reef_d_hot
 *   ...    slots x reef_c_slot            8192   CQ: entries x reef_cqe
 *   ...    input area: slots x stride     ...    slots x reef_d_slot
 *                                         ...    models x reef_model_desc, tensors x reef_tensor_desc
 *                                         ...    output area: slots x stride
 * The offsets that the header gives are the truth; areas with tensors start on a page.
 *
 * Times are CLOCK_MONOTONIC in nanoseconds, sizes and offsets in bytes, indices free-running and masked on use.
 *
 * SYNC POINTS. Each place that orders memory between the two processes carries one of these labels in a comment, in
 * libreef and in the engine; whoever changes one side reads the other.
 *   sq-tail         client: SQE, then store-release sq_tail      daemon: load-acquire sq_tail, then copy the SQE
 *   sq-head         daemon: slot ACCEPTED, store-release sq_head  client: load-acquire sq_head, then reuse the entry
 *   cq-tail         daemon: CQE, outputs, store-release cq_tail  client: load-acquire cq_tail, then copy the CQE
 *   cq-head         client: CQE copied, store-release cq_head    daemon: load-acquire cq_head, then reuse the entry
 *   need-wakeup     client: store sq_tail (or announce), seq_cst fence, load need_wakeup
 *                   daemon: store need_wakeup, seq_cst fence, load sq_tail and announce, sleep
 *   cq-waiting      daemon: store cq_tail, seq_cst fence, load cq_waiting, wake
 *                   client: store cq_waiting, seq_cst fence, load cq_tail, sleep
 *   cancel-verdict  daemon: store-release cancel_verdict         client: load-acquire cancel_verdict
 *   daemon-epoch    daemon: region adopted, store-release liveness, then daemon_epoch
 *                   client: load-acquire daemon_epoch, then the rest
 * The daemon calls futex(2) FUTEX_WAKE (shared) on cq_tail where REEF_WAIT_FUTEX is set, and never clears cq_waiting.
 */
#ifndef REEF_ABI_H
#define REEF_ABI_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define REEF_ASSERT_LAYOUT(cond) static_assert(cond, #cond)
#define REEF_HOT alignas(128)
extern "C" {
#else
#define REEF_ASSERT_LAYOUT(cond) _Static_assert(cond, #cond)
#define REEF_HOT _Alignas(128)
#endif
#define REEF_ASSERT_OFFSET(type, member, at) REEF_ASSERT_LAYOUT(offsetof(type, member) == (at))
#define REEF_ASSERT_SIZE(type, size) REEF_ASSERT_LAYOUT(sizeof(type) == (size))

#define REEF_MAGIC 0x46454552u /* "REEF" in memory */
#define REEF_ABI_MAJOR 1       /* another major: refused */
#define REEF_ABI_MINOR 1       /* additions that an older peer may ignore; 1: payload CRCs */

#define REEF_LINE 128u  /* hot words are this far apart: two cache lines, because of the adjacent-line prefetcher */
#define REEF_PAGE 4096u /* tensors are aligned to this */
#define REEF_NAME_MAX 64u
#define REEF_TEXT_MAX 256u
#define REEF_MAX_RANK 8u
#define REEF_MAX_SLOTS 1024u
#define REEF_MAX_MODELS 64u
#define REEF_MAX_TENSORS 4096u

/* Element types of tensors; the numbers are those of ONNX's TensorProto.DataType. */
enum reef_dtype {
    REEF_FLOAT32 = 1,
    REEF_UINT8 = 2,
    REEF_INT8 = 3,
    REEF_UINT16 = 4,
    REEF_INT16 = 5,
    REEF_INT32 = 6,
    REEF_INT64 = 7,
    REEF_BOOL = 9,
    REEF_FLOAT16 = 10,
    REEF_FLOAT64 = 11,
    REEF_UINT32 = 12,
    REEF_UINT64 = 13
};

enum reef_class { REEF_CLASS_RT = 0, REEF_CLASS_BE = 1 };

/* What a submission does when every slot is in use (struct reef_header, queue_policy). */
enum reef_queue_policy { REEF_QUEUE_FAIL = 0, REEF_QUEUE_BLOCK = 1, REEF_QUEUE_LATEST = 2 };

/* ---------------------------------------------------------------- submission and completion entries */

enum reef_opcode {
    REEF_OP_INFER = 0,
    /* Names a slot and the generation it was submitted with. Has no completion of its own: the verdict appears in the
     * slot's daemon half (cancel_verdict), the request itself completes as always. */
    REEF_OP_CANCEL = 1
};

enum {
    REEF_SQE_LATEST = 1u << 0, /* cancel this session's oldest unstarted request when this one has to wait */
    REEF_SQE_CRC = 1u << 1,    /* crc is valid; required where the header demands it */
    /* payload_crc is valid. Required where the header demands it, refused elsewhere: the manifest chooses. */
    REEF_SQE_PAYLOAD_CRC = 1u << 2,
    REEF_SQE_FLAGS = REEF_SQE_LATEST | REEF_SQE_CRC | REEF_SQE_PAYLOAD_CRC
};

struct reef_sqe {
    uint16_t opcode;
    uint16_t flags;       /* REEF_SQE_*; others are reserved, zero and checked */
    uint32_t model;       /* index into the task's models */
    uint32_t slot;        /* [0, slots) */
    uint32_t generation;  /* INFER: the slot's last accepted generation + 1; CANCEL: that of the request meant */
    uint64_t sequence;    /* its low 32 bits equal the entry's index in the ring: loss, repetition, reordering show */
    uint64_t data_id;     /* the client's own name for the data, logged, not interpreted */
    uint64_t user_data;   /* returned in the CQE */
    uint64_t deadline_ns; /* absolute; 0: the task's own deadline, counted from acceptance */
    uint64_t reserved;    /* zero, checked */
    /* With REEF_SQE_PAYLOAD_CRC: CRC-32C of the model's input tensors, in their order, each from its first byte to its
     * last, what lies between them left out. The daemon computes it again when it accepts the request, so that nothing
     * damaged is run, and once more when it completes it, so that what was run is what was checked; where one of them
     * differs the request ends with -EILSEQ. Without the flag: zero, checked. */
    uint32_t payload_crc;
    uint32_t crc; /* CRC-32C of the 60 bytes before it */
};
REEF_ASSERT_SIZE(struct reef_sqe, 64);
REEF_ASSERT_OFFSET(struct reef_sqe, model, 4);
REEF_ASSERT_OFFSET(struct reef_sqe, slot, 8);
REEF_ASSERT_OFFSET(struct reef_sqe, generation, 12);
REEF_ASSERT_OFFSET(struct reef_sqe, sequence, 16);
REEF_ASSERT_OFFSET(struct reef_sqe, data_id, 24);
REEF_ASSERT_OFFSET(struct reef_sqe, user_data, 32);
REEF_ASSERT_OFFSET(struct reef_sqe, deadline_ns, 40);
REEF_ASSERT_OFFSET(struct reef_sqe, reserved, 48);
REEF_ASSERT_OFFSET(struct reef_sqe, payload_crc, 56);
REEF_ASSERT_OFFSET(struct reef_sqe, crc, 60);

enum {
    REEF_CQE_LATE = 1u << 0,       /* finished, after its deadline */
    REEF_CQE_REPLAYED = 1u << 1,   /* executed again after the daemon was restarted */
    REEF_CQE_PAYLOAD_CRC = 1u << 2 /* payload_crc is valid */
};

struct reef_cqe {
    uint64_t user_data;
    uint32_t slot;
    uint32_t generation;
    uint64_t sequence;    /* the SQE's */
    int32_t status;       /* 0 or a negative errno */
    uint16_t flags;       /* REEF_CQE_* */
    uint16_t preemptions; /* how often the request was preempted, saturating */
    uint64_t accept_ns;   /* taken from the ring */
    uint64_t start_ns;    /* first launched; 0 if never */
    uint64_t end_ns;      /* completed */
    /* Status 0 of a request that carried one: CRC-32C of the model's output tensors, as for the inputs. The client
     * computes it again before it shows the completion; where they differ the status becomes -EILSEQ. Else zero. */
    uint32_t payload_crc;
    uint32_t crc; /* CRC-32C of the 60 bytes before it */
};
REEF_ASSERT_SIZE(struct reef_cqe, 64);
REEF_ASSERT_OFFSET(struct reef_cqe, slot, 8);
REEF_ASSERT_OFFSET(struct reef_cqe, sequence, 16);
REEF_ASSERT_OFFSET(struct reef_cqe, status, 24);
REEF_ASSERT_OFFSET(struct reef_cqe, flags, 28);
REEF_ASSERT_OFFSET(struct reef_cqe, preemptions, 30);
REEF_ASSERT_OFFSET(struct reef_cqe, accept_ns, 32);
REEF_ASSERT_OFFSET(struct reef_cqe, start_ns, 40);
REEF_ASSERT_OFFSET(struct reef_cqe, end_ns, 48);
REEF_ASSERT_OFFSET(struct reef_cqe, payload_crc, 56);
REEF_ASSERT_OFFSET(struct reef_cqe, crc, 60);

/* ---------------------------------------------------------------- region C: written by the client only */

enum {
    REEF_WAIT_FUTEX = 1u << 0, /* a thread sleeps on cq_tail */
    REEF_WAIT_SOCKET = 1u << 1 /* one byte on the session socket, please: an event loop sleeps in poll */
};

struct reef_c_hot {
    REEF_HOT uint32_t sq_tail;
    REEF_HOT uint32_t cq_head;
    REEF_HOT uint32_t cq_waiting; /* REEF_WAIT_* */
    REEF_HOT uint32_t announce;   /* incremented: an RT request is about to be submitted */
};
REEF_ASSERT_OFFSET(struct reef_c_hot, sq_tail, 0);
REEF_ASSERT_OFFSET(struct reef_c_hot, cq_head, 128);
REEF_ASSERT_OFFSET(struct reef_c_hot, cq_waiting, 256);
REEF_ASSERT_OFFSET(struct reef_c_hot, announce, 384);
REEF_ASSERT_SIZE(struct reef_c_hot, 512);

struct reef_c_slot {
    uint32_t loaned;   /* the generation that the holder will submit next, or has submitted */
    uint32_t released; /* == loaned: nobody on the client's side reads the outputs any more */
    uint32_t reserved[14];
};
REEF_ASSERT_SIZE(struct reef_c_slot, 64);

/* ---------------------------------------------------------------- region D: written by the daemon only */

struct reef_header {
    uint32_t magic;
    uint16_t abi_major;
    uint16_t abi_minor;
    uint32_t header_size;           /* sizeof(struct reef_header) of the writer */
    uint32_t crc;                   /* CRC-32C of the structure with this field zero */
    uint64_t features_compatible;   /* may be ignored */
    uint64_t features_read_only;    /* unknown bits: do not submit */
    uint64_t features_incompatible; /* unknown bits: do not touch */
    uint64_t session_id;
    uint64_t c_size;
    uint64_t d_size;
    uint32_t slots;
    uint32_t entries; /* of the SQ and of the CQ: the power of two >= 2 * slots */
    uint32_t models;
    uint32_t tensors; /* inputs and outputs of all models */
    uint64_t c_sq_offset;
    uint64_t c_slots_offset;
    uint64_t c_inputs_offset; /* slot s: c_inputs_offset + s * c_inputs_stride */
    uint64_t c_inputs_stride;
    uint64_t d_cq_offset;
    uint64_t d_slots_offset;
    uint64_t d_models_offset;
    uint64_t d_tensors_offset;
    uint64_t d_outputs_offset; /* slot s: d_outputs_offset + s * d_outputs_stride */
    uint64_t d_outputs_stride;
    uint32_t task_class;   /* enum reef_class */
    uint32_t queue_policy; /* enum reef_queue_policy */
    /* REEF_SQE_CRC and REEF_SQE_PAYLOAD_CRC where the manifest says crc: and payload_crc:. A client that does not know
     * one of the bits must not use the session. */
    uint32_t sqe_flags_required;
    uint32_t reserved;
    uint64_t deadline_ns; /* the task's deadline, relative to acceptance; 0: none */
    uint64_t signature;   /* of the models' names, types, shapes and weights: adoption compares it */
    char task[64];
};
REEF_ASSERT_OFFSET(struct reef_header, crc, 12);
REEF_ASSERT_OFFSET(struct reef_header, session_id, 40);
REEF_ASSERT_OFFSET(struct reef_header, slots, 64);
REEF_ASSERT_OFFSET(struct reef_header, c_sq_offset, 80);
REEF_ASSERT_OFFSET(struct reef_header, d_outputs_stride, 152);
REEF_ASSERT_OFFSET(struct reef_header, task_class, 160);
REEF_ASSERT_OFFSET(struct reef_header, task, 192);
REEF_ASSERT_SIZE(struct reef_header, 256);

struct reef_stats { /* of this session, since it was made; free-running */
    uint64_t accepted;
    uint64_t completed;
    uint64_t failed; /* completed with another status than 0 */
    uint64_t late;
    uint64_t preempted;  /* preemptions of its requests */
    uint64_t queue_ns;   /* sum of start - accept */
    uint64_t execute_ns; /* sum of end - start */
    uint64_t damaged;    /* requests whose inputs failed their CRC */
};
REEF_ASSERT_SIZE(struct reef_stats, 64);

struct reef_d_hot {
    /* The engine thread's id while it lives: a robust futex. With FUTEX_OWNER_DIED set, or 0: the daemon is gone. */
    REEF_HOT uint32_t liveness;
    REEF_HOT uint64_t daemon_epoch; /* another number: another daemon adopted the session */
    REEF_HOT uint32_t sq_head;
    REEF_HOT uint32_t cq_tail;     /* futex */
    REEF_HOT uint32_t need_wakeup; /* not 0: write the doorbell after publishing sq_tail or announce */
    /* 0, or the negative errno for which the daemon quarantined the session: -EPROTO, -ESHUTDOWN, ... */
    REEF_HOT int32_t verdict;
    REEF_HOT struct reef_stats stats;
};
REEF_ASSERT_OFFSET(struct reef_d_hot, liveness, 0);
REEF_ASSERT_OFFSET(struct reef_d_hot, daemon_epoch, 128);
REEF_ASSERT_OFFSET(struct reef_d_hot, sq_head, 256);
REEF_ASSERT_OFFSET(struct reef_d_hot, cq_tail, 384);
REEF_ASSERT_OFFSET(struct reef_d_hot, need_wakeup, 512);
REEF_ASSERT_OFFSET(struct reef_d_hot, verdict, 640);
REEF_ASSERT_OFFSET(struct reef_d_hot, stats, 768);
REEF_ASSERT_SIZE(struct reef_d_hot, 896);

/* Order of the daemon's writes: sqe; generation and state ACCEPTED as one aligned 8-byte store; then sq_head. Later the
 * CQE, cq_index, a final state, then cq_tail. So a final state whose cq_index does not precede cq_tail is a completion
 * still to be posted, and an entry at sq_head whose generation the slot already has was accepted before sq_head moved.
 * (Two stores instead of one would lose a request, or quarantine an honest client, when the daemon dies between them:
 * tests/model/adopt.pml.) */
enum reef_slot_state {
    REEF_SLOT_FREE = 0,
    REEF_SLOT_ACCEPTED = 1,
    REEF_SLOT_RUNNING = 2,
    REEF_SLOT_DONE = 3,
    REEF_SLOT_CANCELLED = 4,
    REEF_SLOT_EXPIRED = 5,
    REEF_SLOT_REJECTED = 6
};

struct reef_d_slot {
    uint32_t state;      /* enum reef_slot_state; final ones stay until the next acceptance */
    uint32_t generation; /* of the last accepted request; 0: none yet */
    uint32_t attempts;   /* launches after a daemon restart count; a first run is attempt 1 */
    uint32_t cq_index;   /* valid in a final state: index of the CQE */
    uint64_t accept_ns;
    uint64_t start_ns;
    uint64_t cancel_verdict; /* low half: the low half of the CANCEL's sequence; high half: 0 or a negative errno */
    uint32_t crashes;        /* of the daemon, inside this request's own kernels */
    uint32_t reserved0;
    uint64_t reserved[2];
    struct reef_sqe sqe; /* the daemon's own copy, the only one it ever trusts */
};
REEF_ASSERT_SIZE(struct reef_d_slot, 128);
REEF_ASSERT_OFFSET(struct reef_d_slot, accept_ns, 16);
REEF_ASSERT_OFFSET(struct reef_d_slot, cancel_verdict, 32);
REEF_ASSERT_OFFSET(struct reef_d_slot, crashes, 40);
REEF_ASSERT_OFFSET(struct reef_d_slot, sqe, 64);

struct reef_model_desc {
    char name[64];
    uint32_t first_input; /* index into the tensor descriptors */
    uint32_t inputs;
    uint32_t first_output;
    uint32_t outputs;
    uint64_t reserved[6];
};
REEF_ASSERT_SIZE(struct reef_model_desc, 128);

struct reef_tensor_desc {
    char name[64];
    uint32_t dtype; /* enum reef_dtype */
    uint32_t rank;  /* [0, REEF_MAX_RANK] */
    uint64_t shape[8];
    uint64_t offset; /* inputs: from the slot's input area in C; outputs: from its output area in D */
    uint64_t size;
    uint64_t reserved[5];
};
REEF_ASSERT_SIZE(struct reef_tensor_desc, 192);

/* ---------------------------------------------------------------- the session socket (SOCK_SEQPACKET) */

enum reef_request {
    REEF_REQUEST_PROBE = 1,  /* who is there? answered with a reef_welcome without descriptors; the socket closes */
    REEF_REQUEST_OPEN = 2,   /* a new session on `task` */
    REEF_REQUEST_RECLAIM = 3 /* session_id again, after a daemon restart: C's descriptor comes along (SCM_RIGHTS) */
};

/* magic, abi_major, abi_minor and size keep their places in every version, so that any two versions can say who they
 * are. A daemon answers a hello of another major with a reef_welcome that names its own, status -EPROTONOSUPPORT. */
struct reef_hello {
    uint32_t magic;
    uint16_t abi_major;
    uint16_t abi_minor;
    uint32_t size;    /* sizeof(struct reef_hello) */
    uint32_t request; /* enum reef_request */
    uint64_t session_id;
    uint64_t reserved[5];
    char task[64]; /* zero-terminated */
};
REEF_ASSERT_SIZE(struct reef_hello, 128);

/* The answer. With status 0 on OPEN and RECLAIM three descriptors come along, in this order: C (read-write), D
 * (read-only), the doorbell (eventfd). The socket stays open as long as the session: either side's death shows on it.
 * Afterwards the daemon sends one-byte messages (REEF_WAIT_SOCKET), the client nothing.
 * The client of an adopted session cannot ring before it has reclaimed it. Until it sends the welcome the daemon looks at
 * such a session's ring by timer, and once more after it; the client rings the new doorbell when the welcome arrives. */
struct reef_welcome {
    uint32_t magic;
    uint16_t abi_major;
    uint16_t abi_minor;
    uint32_t size;
    int32_t status; /* 0 or a negative errno */
    uint64_t session_id;
    uint64_t daemon_epoch;
    uint64_t c_size;
    uint64_t d_size;
    uint32_t pid;
    uint32_t reserved;
    char version[64]; /* the daemon's, for people */
    char text[256];   /* why it was refused and what to do, for people */
};
REEF_ASSERT_SIZE(struct reef_welcome, 376);

#ifdef __cplusplus
}
#endif
#endif
