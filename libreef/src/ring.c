/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ring.c: requests. Loaning a slot, submitting it, taking completions, cancelling.
 *
 * The hot path is submit, a look at cq_tail, and pull: no system call, no lock, no allocation. Whatever is read from D is
 * copied once and the copy is checked. A completion is copied out of the ring as soon as anybody looks and waits in a
 * private stash, so that reef_infer() can take its own from behind others.
 */
#define _GNU_SOURCE
#include "barrier.h"
#include "session.h"

#define CANCEL_FIRST_LOOK_NS 20000u
#define CANCEL_LAST_LOOK_NS 1000000u

/* The slot of a loan that is held, or NULL. */
static inline struct slot *held(const struct reef_session *s, const struct reef_loan *loan) {
    if (!usable(s) || !loan || loan->slot >= s->slots)
        return NULL;
    struct slot *slot = &s->slot[loan->slot];
    return slot->state != SLOT_FREE && slot->ticket == loan->ticket ? slot : NULL;
}

static inline bool in_flight(const struct slot *slot) {
    return slot->state == SLOT_FLYING || slot->state == SLOT_LANDED;
}

static inline uint32_t stashed(const struct reef_session *s) { return s->stash_tail - s->stash_head; }

/* ---------------------------------------------------------------- submission */

/* Room for n more entries. sq_head is the daemon's and costs a cache miss, so the last value read serves until it
 * does not. */
static bool ring_has_room(struct reef_session *s, uint32_t n) {
    if ((uint32_t)s->sequence + n - s->sq_head <= s->entries)
        return true;
    /* SYNC POINT sq-head: the partner is the engine's acceptance. */
    s->sq_head = load_acquire(&s->d->sq_head);
    return (uint32_t)s->sequence + n - s->sq_head <= s->entries;
}

static inline void write_sqe(struct reef_session *s, struct reef_sqe *sqe) {
    sqe->sequence = s->sequence;
    sqe->crc = s->crc(0, sqe, offsetof(struct reef_sqe, crc));
    s->sq[s->sequence & s->mask] = *sqe;
    s->sequence++;
}

/* CRC-32C of n tensors of a slot, one after the other. */
static uint32_t payload_crc(const struct reef_session *s, const uint8_t *area, uint32_t first, uint32_t n) {
    uint32_t crc = 0;
    for (uint32_t i = first; i < first + n; i++)
        crc = s->crc(crc, area + s->tensor[i].offset, s->tensor[i].size);
    return crc;
}

/* Makes the entries written so far the daemon's, and wakes it where it sleeps. */
static inline void publish(struct reef_session *s) {
    /* SYNC POINT sq-tail: the partner is the engine's copy of the SQE. */
    store_release(&s->c->sq_tail, (uint32_t)s->sequence);
    /* SYNC POINT need-wakeup: the partner is the engine going to sleep. */
    full_fence();
    if (load_relaxed(&s->d->need_wakeup))
        ring_doorbell(s);
    if (load_relaxed(&s->d->daemon_epoch) != s->epoch || s->link != LINK_UP)
        (void)session_check(s); /* it stands in the ring either way; who waits for it hears of errors */
}

static inline void write_request(struct reef_session *s, struct reef_loan *loan, struct slot *slot,
                                 const struct reef_options *options) {
    struct reef_sqe sqe = {.opcode = REEF_OP_INFER,
                           .flags = s->sqe_flags,
                           .model = slot->model,
                           .slot = loan->slot,
                           .generation = ++slot->generation};
    if (options) {
        sqe.flags |= (uint16_t)options->flags;
        sqe.user_data = options->user_data;
        sqe.data_id = options->data_id;
        sqe.deadline_ns = options->deadline_ns;
    }
    if (__builtin_expect(sqe.flags & REEF_SQE_PAYLOAD_CRC, 0)) {
        const struct reef_model_desc *model = &s->model[slot->model];
        sqe.payload_crc = payload_crc(s, s->inputs + loan->slot * s->inputs_stride, model->first_input, model->inputs);
    }
    slot->sequence = s->sequence;
    slot->state = SLOT_FLYING;
    s->flying++;
    loan->generation = slot->generation;
    store_relaxed(&s->c_slots[loan->slot].loaned, slot->generation);
    write_sqe(s, &sqe);
}

static inline bool options_good(const struct reef_options *options) {
    return !options || ((options->flags & ~(uint32_t)REEF_SQE_LATEST) == 0 && options->reserved == 0);
}

/* Why nothing can be submitted at all; 0: it can. */
static inline int submit_check(struct reef_session *s, uint32_t n) {
    int error = s->error | s->submit_error | load_relaxed(&s->d->verdict);
    if (__builtin_expect(error != 0, 0))
        return s->error ? s->error : s->submit_error ? s->submit_error : session_check(s);
    if (s->flying + stashed(s) + n > s->entries || !ring_has_room(s, n))
        return -EAGAIN;
    return 0;
}

int reef_submit(reef_session *s, struct reef_loan *loan, const struct reef_options *options) {
    struct slot *slot = held(s, loan);
    if (!slot || !options_good(options))
        return -EINVAL;
    if (in_flight(slot))
        return -EBUSY;
    int rc = submit_check(s, 1);
    if (rc < 0)
        return rc;
    write_request(s, loan, slot, options);
    publish(s);
    return 0;
}

int reef_submit_batch(reef_session *s, struct reef_loan *loans, const struct reef_options *options, uint32_t n) {
    if (!usable(s) || (n && !loans))
        return -EINVAL;
    if (n == 0)
        return 0;
    int rc = n > s->slots ? -EAGAIN : submit_check(s, n);
    uint32_t checked = 0;
    for (; rc == 0 && checked < n; checked++) {
        struct slot *slot = held(s, &loans[checked]);
        if (!slot || !options_good(options ? &options[checked] : NULL))
            rc = -EINVAL;
        else if (in_flight(slot))
            rc = -EBUSY;
        else
            slot->state = SLOT_FLYING; /* so that the same loan twice is -EBUSY */
        if (rc < 0)
            break;
    }
    if (rc < 0) {
        while (checked--)
            s->slot[loans[checked].slot].state = SLOT_LOANED;
        return rc;
    }
    for (uint32_t i = 0; i < n; i++)
        write_request(s, &loans[i], &s->slot[loans[i].slot], options ? &options[i] : NULL);
    publish(s);
    return 0;
}

int reef_announce(reef_session *s) {
    if (!usable(s))
        return -EINVAL;
    if (s->error)
        return s->error;
    store_release(&s->c->announce, load_relaxed(&s->c->announce) + 1);
    /* SYNC POINT need-wakeup: the partner is the engine going to sleep. */
    full_fence();
    if (load_relaxed(&s->d->need_wakeup))
        ring_doorbell(s);
    return 0;
}

/* ---------------------------------------------------------------- completions */

static bool cqe_good(const struct reef_session *s, const struct reef_cqe *cqe) {
    if (s->crc(0, cqe, offsetof(struct reef_cqe, crc)) != cqe->crc || cqe->slot >= s->slots || cqe->status > 0)
        return false;
    const struct slot *slot = &s->slot[cqe->slot];
    return slot->state == SLOT_FLYING && slot->generation == cqe->generation && slot->sequence == cqe->sequence;
}

static int damaged(struct reef_session *s, const char *what) {
    explain(s->reason, "%s", what);
    s->error = -EBADMSG;
    return s->error;
}

/* The flags to add. With REEF_DAMAGED_OUTPUTS the status becomes -EILSEQ. */
static uint32_t payload_flags(struct reef_session *s, const struct reef_cqe *cqe) {
    if (cqe->status == -EILSEQ) {
        explain(s->reason, "the inputs of slot %u are not what was submitted: submit again", cqe->slot);
        return REEF_DAMAGED_INPUTS;
    }
    if (cqe->status != 0)
        return 0;
    const struct reef_model_desc *model = &s->model[s->slot[cqe->slot].model];
    const uint8_t *area = s->outputs + cqe->slot * s->outputs_stride;
    if (cqe->flags & REEF_CQE_PAYLOAD_CRC &&
        payload_crc(s, area, model->first_output, model->outputs) == cqe->payload_crc)
        return 0;
    s->damaged++;
    explain(s->reason, "the outputs of slot %u are not what the daemon computed: submit again", cqe->slot);
    return REEF_DAMAGED_OUTPUTS;
}

static inline void stash(struct reef_session *s, const struct reef_cqe *cqe) {
    struct slot *slot = &s->slot[cqe->slot];
    uint32_t flags = cqe->flags;
    if (__builtin_expect(s->sqe_flags & REEF_SQE_PAYLOAD_CRC, 0))
        flags |= payload_flags(s, cqe);
    slot->state = slot->dropped && cqe->status == -ECANCELED ? SLOT_FREE : SLOT_LANDED;
    slot->dropped = false;
    s->flying--;
    s->stash[s->stash_tail++ & s->mask] =
        (struct reef_completion){.user_data = cqe->user_data,
                                 .slot = cqe->slot,
                                 .generation = cqe->generation,
                                 .status = flags & REEF_DAMAGED_OUTPUTS ? -EILSEQ : cqe->status,
                                 .flags = flags,
                                 .preemptions = cqe->preemptions,
                                 .accept_ns = cqe->accept_ns,
                                 .start_ns = cqe->start_ns,
                                 .end_ns = cqe->end_ns};
}

int pull(struct reef_session *s) {
    /* SYNC POINT cq-tail: the partner is the engine's publication of the CQE and the outputs. */
    uint32_t tail = load_acquire(&s->d->cq_tail);
    if (tail == s->cq_head)
        return 0;
    if (s->error == -EBADMSG)
        return s->error;
    if (tail - s->cq_head > s->entries)
        return damaged(s, "the completion ring's tail is impossible");
    int rc = 0;
    for (; s->cq_head != tail; s->cq_head++) {
        struct reef_cqe cqe = s->cq[s->cq_head & s->mask];
        if (!cqe_good(s, &cqe)) {
            rc = damaged(s, "a completion failed its checks");
            break;
        }
        stash(s, &cqe);
    }
    /* SYNC POINT cq-head: the partner is the engine's reuse of the CQE. */
    store_release(&s->c->cq_head, s->cq_head);
    if (s->waiting) {
        s->waiting = 0;
        store_relaxed(&s->c->cq_waiting, 0);
    }
    return rc;
}

/* The caller now knows of this completion: its loan may be submitted or released again. */
static inline void landed(struct reef_session *s, const struct reef_completion *completion) {
    struct slot *slot = &s->slot[completion->slot];
    if (slot->state == SLOT_LANDED && slot->generation == completion->generation)
        slot->state = SLOT_LOANED;
}

static inline int look(struct reef_session *s) {
    if (stashed(s))
        return 0;
    int rc = pull(s);
    if (stashed(s))
        return 0;
    return rc < 0 ? rc : -EAGAIN;
}

/* Nothing in the ring: the reason may be that nobody fills it any more. */
static int look_closely(struct reef_session *s) {
    int rc = look(s);
    if (rc != -EAGAIN)
        return rc;
    rc = session_check(s);
    int again = look(s);
    return again == -EAGAIN && rc < 0 ? rc : again;
}

int reef_peek(reef_session *s, struct reef_completion *completion) {
    if (!usable(s) || !completion)
        return -EINVAL;
    int rc = look_closely(s);
    if (rc < 0)
        return rc;
    *completion = s->stash[s->stash_head & s->mask];
    landed(s, completion);
    return 0;
}

int reef_wait(reef_session *s, int64_t timeout_ns, struct reef_completion *completion) {
    int rc = reef_peek(s, completion);
    if (rc != -EAGAIN || timeout_ns == 0)
        return rc;
    rc = await_completion(s, deadline_of(timeout_ns));
    return rc < 0 ? rc : reef_peek(s, completion);
}

void reef_seen(reef_session *s) {
    if (!usable(s) || look(s) < 0)
        return;
    landed(s, &s->stash[s->stash_head & s->mask]);
    s->stash_head++;
}

/* Takes one completion out of the middle of the stash; the others keep their order. */
static void take(struct reef_session *s, uint32_t slot, uint32_t generation, struct reef_completion *completion) {
    uint32_t at = s->stash_tail - 1;
    while (s->stash[at & s->mask].slot != slot || s->stash[at & s->mask].generation != generation)
        at--;
    *completion = s->stash[at & s->mask];
    landed(s, completion);
    for (; at != s->stash_head; at--)
        s->stash[at & s->mask] = s->stash[(at - 1) & s->mask];
    s->stash_head++;
}

/* Waits for the request of one slot, which is in flight. */
static int await_slot(struct reef_session *s, const struct slot *slot, uint64_t deadline) {
    while (slot->state == SLOT_FLYING) {
        int rc = pull(s);
        if (rc == 0 && slot->state == SLOT_FLYING)
            rc = await_completion(s, deadline);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int reef_infer(reef_session *s, struct reef_loan *loan, const struct reef_options *options, int64_t timeout_ns,
               struct reef_completion *completion) {
    int rc = reef_submit(s, loan, options);
    if (rc < 0)
        return rc;
    const struct slot *slot = &s->slot[loan->slot];
    rc = await_slot(s, slot, deadline_of(timeout_ns));
    if (rc < 0)
        return rc == -ETIMEDOUT && timeout_ns == 0 ? -EAGAIN : rc;
    struct reef_completion own;
    take(s, loan->slot, loan->generation, completion ? completion : &own);
    return completion ? completion->status : own.status;
}

/* ---------------------------------------------------------------- cancelling */

/* 0: it will complete with -ECANCELED. Sleeping is on a timer as well as on the ring: a verdict wakes nobody. */
static int await_verdict(struct reef_session *s, uint32_t index, uint32_t sequence, uint64_t deadline) {
    const struct slot *slot = &s->slot[index];
    uint64_t look_ns = CANCEL_FIRST_LOOK_NS;
    for (;;) {
        /* SYNC POINT cancel-verdict: the partner is the engine's answer to CANCEL. */
        uint64_t verdict = load_acquire(&s->d_slots[index].cancel_verdict);
        if ((uint32_t)verdict == sequence) {
            int32_t code = (int32_t)(verdict >> 32);
            return code <= 0 ? code : -EPROTO;
        }
        int rc = pull(s);
        if (rc < 0)
            return rc;
        if (slot->state != SLOT_FLYING) {
            /* Done before its verdict was seen: it is the newest of its slot in the stash. */
            uint32_t at = s->stash_tail - 1;
            while (s->stash[at & s->mask].slot != index)
                at--;
            return s->stash[at & s->mask].status == -ECANCELED ? 0 : -EALREADY;
        }
        rc = session_check(s);
        if (rc < 0)
            return rc;
        uint64_t now = now_ns();
        if (now >= deadline)
            return -ETIMEDOUT;
        int saved = errno;
        sleep_once(s, deadline - now < look_ns ? deadline : now + look_ns);
        errno = saved;
        look_ns = look_ns < CANCEL_LAST_LOOK_NS ? 2 * look_ns : look_ns;
    }
}

/* Asks the daemon to cancel a request in flight. 0, and the CANCEL's sequence; or why it cannot be asked. */
static int post_cancel(struct reef_session *s, uint32_t index, uint32_t *sequence) {
    if (s->error || s->submit_error)
        return s->error ? s->error : s->submit_error;
    if (!ring_has_room(s, 1))
        return -EAGAIN;
    const struct slot *slot = &s->slot[index];
    struct reef_sqe sqe = {.opcode = REEF_OP_CANCEL,
                           .flags = REEF_SQE_CRC,
                           .model = slot->model,
                           .slot = index,
                           .generation = slot->generation};
    *sequence = (uint32_t)s->sequence;
    write_sqe(s, &sqe);
    publish(s);
    return 0;
}

int reef_cancel(reef_session *s, const struct reef_loan *loan, int64_t timeout_ns) {
    const struct slot *slot = held(s, loan);
    if (!slot)
        return -EINVAL;
    if (slot->generation != loan->generation || !in_flight(slot))
        return -ENOENT;
    int rc = pull(s);
    if (rc < 0)
        return rc;
    if (slot->state == SLOT_LANDED)
        return -EALREADY;
    uint32_t sequence;
    rc = post_cancel(s, loan->slot, &sequence);
    if (rc < 0)
        return rc;
    rc = await_verdict(s, loan->slot, sequence, deadline_of(timeout_ns));
    return rc == -ETIMEDOUT && timeout_ns == 0 ? -EAGAIN : rc;
}

/* ---------------------------------------------------------------- loans */

static uint32_t find_free(const struct reef_session *s) {
    uint32_t i = 0;
    while (i < s->slots && s->slot[i].state != SLOT_FREE)
        i++;
    return i;
}

/* The oldest request that has not started and was submitted after `after`; slots if there is none. */
static uint32_t find_oldest_waiting(const struct reef_session *s, uint64_t after) {
    uint32_t oldest = s->slots;
    for (uint32_t i = 0; i < s->slots; i++) {
        const struct slot *slot = &s->slot[i];
        if (slot->state != SLOT_FLYING || slot->dropped || slot->sequence < after ||
            (oldest < s->slots && s->slot[oldest].sequence < slot->sequence))
            continue;
        bool accepted = load_acquire(&s->d_slots[i].generation) == slot->generation;
        if (!accepted || load_acquire(&s->d_slots[i].state) == REEF_SLOT_ACCEPTED)
            oldest = i;
    }
    return oldest;
}

/* Queue policy LATEST: makes the oldest waiting request give up its slot. */
static int drop_oldest(struct reef_session *s, uint64_t deadline) {
    uint64_t after = 0;
    for (;;) {
        uint32_t index = find_oldest_waiting(s, after);
        if (index == s->slots)
            return -EAGAIN;
        struct slot *slot = &s->slot[index];
        uint32_t sequence;
        after = slot->sequence + 1;
        int rc = post_cancel(s, index, &sequence);
        if (rc < 0)
            return rc;
        rc = await_verdict(s, index, sequence, deadline);
        if (rc == 0 && slot->state == SLOT_LANDED) {
            slot->state = SLOT_FREE;
            return 0;
        }
        if (rc == 0 || rc == -ETIMEDOUT) {
            slot->dropped = true;
            return rc == 0 ? await_slot(s, slot, deadline) : rc;
        }
        if (rc != -EALREADY && rc != -ENOENT)
            return rc;
    }
}

/* Queue policy BLOCK: nobody but the caller can free a slot, so it is called back as soon as it can. */
static int await_any(struct reef_session *s, int64_t timeout_ns) {
    if (stashed(s) || timeout_ns == 0)
        return -EAGAIN;
    if (s->flying == 0)
        return -EDEADLK;
    int rc = await_completion(s, deadline_of(timeout_ns));
    return rc < 0 ? rc : -EAGAIN;
}

static int make_room(struct reef_session *s, int64_t timeout_ns) {
    int rc = pull(s);
    if (rc < 0)
        return rc;
    rc = session_check(s);
    if (rc < 0)
        return rc;
    if (find_free(s) < s->slots)
        return 0;
    switch (s->header.queue_policy) {
    case REEF_QUEUE_BLOCK:
        return await_any(s, timeout_ns);
    case REEF_QUEUE_LATEST:
        if (s->flying + stashed(s) >= s->entries)
            return -EAGAIN;
        rc = drop_oldest(s, deadline_of(timeout_ns));
        return rc == -ETIMEDOUT && timeout_ns == 0 ? -EAGAIN : rc;
    default:
        return -EAGAIN;
    }
}

int reef_loan(reef_session *s, uint32_t model, int64_t timeout_ns, struct reef_loan *loan) {
    if (!usable(s) || !loan || model >= s->models)
        return -EINVAL;
    if (s->error)
        return s->error;
    uint32_t index = find_free(s);
    if (index == s->slots) {
        int rc = make_room(s, timeout_ns);
        if (rc < 0)
            return rc;
        index = find_free(s);
        if (index == s->slots)
            return -EAGAIN; /* the one to be cancelled was done first: its holder has it */
    }
    struct slot *slot = &s->slot[index];
    slot->state = SLOT_LOANED;
    slot->model = model;
    slot->ticket++;
    store_relaxed(&s->c_slots[index].loaned, slot->generation + 1);
    *loan = (struct reef_loan){.slot = index, .model = model, .ticket = slot->ticket};
    return 0;
}

int reef_release(reef_session *s, struct reef_loan *loan) {
    struct slot *slot = held(s, loan);
    if (!slot)
        return -EINVAL;
    if (in_flight(slot))
        return -EBUSY;
    slot->state = SLOT_FREE;
    store_release(&s->c_slots[loan->slot].released, load_relaxed(&s->c_slots[loan->slot].loaned));
    *loan = (struct reef_loan){.slot = UINT32_MAX};
    return 0;
}

void *reef_input(const reef_session *s, const struct reef_loan *loan, uint32_t input) {
    const struct slot *slot = held(s, loan);
    if (!slot || input >= s->model[slot->model].inputs)
        return NULL;
    const struct reef_tensor_desc *tensor = &s->tensor[s->model[slot->model].first_input + input];
    return s->inputs + loan->slot * s->inputs_stride + tensor->offset;
}

const void *reef_output(const reef_session *s, const struct reef_loan *loan, uint32_t output) {
    const struct slot *slot = held(s, loan);
    if (!slot || output >= s->model[slot->model].outputs)
        return NULL;
    const struct reef_tensor_desc *tensor = &s->tensor[s->model[slot->model].first_output + output];
    return s->outputs + loan->slot * s->outputs_stride + tensor->offset;
}
