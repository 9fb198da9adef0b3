// SPDX-License-Identifier: Apache-2.0
// peer.c: plays the daemon for the tests of libreef, as far as the session socket and the two regions go.
//
// It knows reef_abi.h and nothing of libreef or reefd. It runs two models on the spot ("echo" copies its input, "pair" has
// several tensors of several types and ranks), checks every submission as strictly as a daemon would, and misbehaves on
// request: late, dying after accepting, another ABI, damaged headers and completions. Its regions are files in --dir, so
// that a second peer started there takes the sessions of the first one over. SIGUSR1 completes what --hold kept,
// SIGTERM stops in an orderly way, SIGKILL is a crash.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <reef_abi.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_SESSIONS 16
#define FIRST_ID 100
#define STRIDE (256ull << 20) // address space for each session's D: the same distance from its robust-list node

#define load(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define store(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define fence() __atomic_thread_fence(__ATOMIC_SEQ_CST)

static struct {
    const char *socket, *dir, *corrupt, *corrupt_cqe;
    uint32_t slots, bytes, policy, hold, spin, die_after, abi, refuse, refuse_reclaim, silent, fds, quarantine_after;
    uint32_t read_only, hang_up, first, ready;
    uint64_t delay_us;
} option = {.slots = 4, .bytes = 64, .fds = 3};

struct session {
    bool open;
    uint64_t id;
    int socket, doorbell, c_fd, d_fd;
    uint8_t *c, *d;
    struct reef_header *header; // our own copy: what the client sees may be damaged
    struct reef_header own_header;
    struct reef_c_hot *c_hot;
    struct reef_d_hot *d_hot;
    struct reef_sqe *sq;
    struct reef_cqe *cq;
    struct reef_d_slot *slot;
    struct reef_tensor_desc *tensor;
    struct reef_model_desc *model;
    uint32_t announced;
    bool frozen;
};

static struct session sessions[MAX_SESSIONS];
static uint64_t epoch;
static uint32_t accepted_total;
static uint8_t *arena; // MAX_SESSIONS * STRIDE of reserved addresses
static struct robust_list_head robust;
static volatile sig_atomic_t let_go, stop;

static void on_signal(int number) {
    if (number == SIGUSR1)
        let_go = 1;
    else
        stop = 1;
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(2);
}

// Bit by bit, on purpose another algorithm than libreef's.
static uint32_t crc32c(const void *data, size_t size) {
    static uint32_t table[256];
    if (!table[1]) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t value = i;
            for (int bit = 0; bit < 8; bit++)
                value = value & 1 ? (value >> 1) ^ 0x82f63b78u : value >> 1;
            table[i] = value;
        }
    }
    uint32_t crc = ~0u;
    for (size_t i = 0; i < size; i++)
        crc = table[(crc ^ ((const uint8_t *)data)[i]) & 255] ^ (crc >> 8);
    return ~crc;
}

// ---------------------------------------------------------------- regions

static uint64_t round_up(uint64_t value, uint64_t to) {
    return (value + to - 1) / to * to;
}

static void set_tensor(struct reef_tensor_desc *tensor, const char *name, uint32_t dtype, uint32_t rank, uint64_t a,
                       uint64_t b, uint64_t size, uint64_t offset) {
    *tensor = (struct reef_tensor_desc){
        .dtype = dtype, .rank = rank, .shape = {a, b}, .size = size, .offset = offset};
    strcpy(tensor->name, name);
}

static void set_tables(struct session *s) {
    uint32_t n = option.bytes;
    uint64_t echo_end = round_up(n, REEF_PAGE);
    strcpy(s->model[0].name, "echo");
    s->model[0].first_input = 0;
    s->model[0].inputs = 1;
    s->model[0].first_output = 1;
    s->model[0].outputs = 1;
    strcpy(s->model[1].name, "pair");
    s->model[1].first_input = 2;
    s->model[1].inputs = 2;
    s->model[1].first_output = 4;
    s->model[1].outputs = 2;
    set_tensor(&s->tensor[0], "image", REEF_FLOAT32, 2, n / 8, 2, n, 0);
    set_tensor(&s->tensor[1], "echo", REEF_FLOAT32, 2, n / 8, 2, n, 0);
    set_tensor(&s->tensor[2], "a", REEF_INT32, 2, 2, 3, 24, 0);
    set_tensor(&s->tensor[3], "b", REEF_UINT8, 1, 5, 0, 5, REEF_PAGE);
    set_tensor(&s->tensor[4], "sum", REEF_FLOAT64, 0, 0, 0, 8, echo_end);
    set_tensor(&s->tensor[5], "b", REEF_UINT8, 1, 5, 0, 5, 0);
}

// One damage each; the CRC is right again afterwards unless it is the damage.
static void damage(struct session *s, const char *how) {
    struct reef_header *h = (struct reef_header *)s->d;
    bool fix = true;
#define CASE(name) else if (strcmp(how, name) == 0)
    if (strcmp(how, "crc") == 0)
        h->crc ^= 1, fix = false;
    CASE("bit") h->slots ^= 1, fix = false;
    CASE("magic") h->magic++;
    CASE("major") h->abi_major++;
    CASE("feature") h->features_incompatible = 1ull << 40;
    CASE("header-size-small") h->header_size = 8, fix = false;
    CASE("header-size-huge") h->header_size = 0xfffffff0u, fix = false;
    CASE("session") h->session_id++;
    CASE("c-size") h->c_size += REEF_PAGE;
    CASE("d-size") h->d_size -= REEF_PAGE;
    CASE("no-slots") h->slots = 0;
    CASE("many-slots") h->slots = 0xffffffffu;
    CASE("entries") h->entries *= 2;
    CASE("entries-odd") h->entries -= 1;
    CASE("no-models") h->models = 0;
    CASE("many-models") h->models = 0xffffffffu;
    CASE("many-tensors") h->tensors = 0xffffffffu;
    CASE("more-tensors") h->tensors = REEF_MAX_TENSORS;
    CASE("sq-far") h->c_sq_offset = h->c_size;
    CASE("sq-wrap") h->c_sq_offset = ~0ull - 63;
    CASE("sq-unaligned") h->c_sq_offset += 4;
    CASE("sq-on-hot") h->c_sq_offset = 64;
    CASE("slots-on-sq") h->c_slots_offset = h->c_sq_offset;
    CASE("inputs-unaligned") h->c_inputs_offset += 64;
    CASE("inputs-stride") h->c_inputs_stride = ~0ull / 2 & ~4095ull;
    CASE("inputs-stride-small") h->c_inputs_stride = 0;
    CASE("inputs-stride-odd") h->c_inputs_stride -= 1;
    CASE("cq-far") h->d_cq_offset = 1ull << 60;
    CASE("cq-on-hot") h->d_cq_offset = REEF_PAGE + 64;
    CASE("d-slots-far") h->d_slots_offset = h->d_size - 64;
    CASE("models-far") h->d_models_offset = h->d_size;
    CASE("tensors-far") h->d_tensors_offset = h->d_size - 64;
    CASE("outputs-far") h->d_outputs_offset = h->d_size;
    CASE("outputs-stride") h->d_outputs_stride *= 1ull << 40;
    CASE("class") h->task_class = 7;
    CASE("policy") h->queue_policy = 7;
    CASE("flags") h->sqe_flags_required = 1u << 9;
    CASE("task") memset(h->task, 'x', sizeof h->task);
    CASE("model-name") memset(s->model[1].name, 'x', 64);
    CASE("model-inputs") s->model[1].inputs = 0xffffffffu;
    CASE("model-first") s->model[1].first_output = 0xffffffffu;
    CASE("tensor-name") memset(s->tensor[3].name, 'x', 64);
    CASE("tensor-dtype") s->tensor[3].dtype = 8;
    CASE("tensor-dtype-huge") s->tensor[3].dtype = 0xffffffffu;
    CASE("tensor-rank") s->tensor[3].rank = 9;
    CASE("tensor-shape") s->tensor[3].shape[0] = 6;
    CASE("tensor-shape-wrap") s->tensor[2].shape[0] = 1ull << 62;
    CASE("tensor-offset") s->tensor[3].offset = s->header->c_inputs_stride;
    CASE("tensor-offset-wrap") s->tensor[3].offset = ~0ull & ~4095ull;
    CASE("tensor-unaligned") s->tensor[5].offset = 64;
    CASE("tail") s->d_hot->cq_tail = 3;
    CASE("head") s->d_hot->sq_head = 3;
    else fail(how);
    if (fix) {
        h->crc = 0;
        h->crc = crc32c(h, sizeof *h);
    }
}

static void point(struct session *s) {
    s->own_header = *(struct reef_header *)s->d;
    struct reef_header *h = s->header = &s->own_header;
    s->c_hot = (struct reef_c_hot *)s->c;
    s->d_hot = (struct reef_d_hot *)(s->d + REEF_PAGE);
    s->sq = (struct reef_sqe *)(s->c + h->c_sq_offset);
    s->cq = (struct reef_cqe *)(s->d + h->d_cq_offset);
    s->slot = (struct reef_d_slot *)(s->d + h->d_slots_offset);
    s->model = (struct reef_model_desc *)(s->d + h->d_models_offset);
    s->tensor = (struct reef_tensor_desc *)(s->d + h->d_tensors_offset);
}

static void layout(struct reef_header *h, uint64_t id, const char *task) {
    uint32_t entries = 2;
    while (entries < 2 * option.slots)
        entries *= 2;
    uint64_t stride = round_up(option.bytes, REEF_PAGE) + REEF_PAGE;
    if (stride < 2 * REEF_PAGE)
        stride = 2 * REEF_PAGE;
    *h = (struct reef_header){.magic = REEF_MAGIC, .abi_major = REEF_ABI_MAJOR, .abi_minor = REEF_ABI_MINOR};
    h->header_size = sizeof *h;
    h->features_read_only = option.read_only;
    h->session_id = id;
    h->slots = option.slots;
    h->entries = entries;
    h->models = 2;
    h->tensors = 6;
    h->c_sq_offset = REEF_PAGE;
    h->c_slots_offset = h->c_sq_offset + entries * sizeof(struct reef_sqe);
    h->c_inputs_offset = round_up(h->c_slots_offset + option.slots * sizeof(struct reef_c_slot), REEF_PAGE);
    h->c_inputs_stride = stride;
    h->c_size = h->c_inputs_offset + option.slots * stride;
    h->d_cq_offset = 2 * REEF_PAGE;
    h->d_slots_offset = h->d_cq_offset + entries * sizeof(struct reef_cqe);
    h->d_models_offset = h->d_slots_offset + option.slots * sizeof(struct reef_d_slot);
    h->d_tensors_offset = h->d_models_offset + 2 * sizeof(struct reef_model_desc);
    h->d_outputs_offset = round_up(h->d_tensors_offset + 6 * sizeof(struct reef_tensor_desc), REEF_PAGE);
    h->d_outputs_stride = stride;
    h->d_size = h->d_outputs_offset + option.slots * stride;
    h->queue_policy = option.policy;
    strcpy(h->task, task);
}

static void map(struct session *s, uint64_t c_size, uint64_t d_size) {
    uint8_t *at = arena + (size_t)(s - sessions) * STRIDE;
    s->c = mmap(NULL, c_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, s->c_fd, 0);
    // One private page for the robust list's node, then D: the kernel wants one distance for all nodes.
    uint8_t *node = mmap(at, REEF_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    s->d = mmap(at + REEF_PAGE, d_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_POPULATE, s->d_fd, 0);
    if (s->c == MAP_FAILED || node == MAP_FAILED || s->d == MAP_FAILED)
        fail("mmap");
    struct robust_list *entry = (struct robust_list *)node;
    entry->next = robust.list.next;
    robust.list.next = entry;
}

static void own(struct session *s) {
    s->doorbell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    store(&s->d_hot->need_wakeup, 1);
    store(&s->d_hot->liveness, (uint32_t)syscall(SYS_gettid) | FUTEX_WAITERS);
    store(&s->d_hot->daemon_epoch, epoch); // SYNC POINT daemon-epoch
    s->open = true;
}

static int region_file(uint64_t id, const char *suffix, int flags) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%llu.%s", option.dir, (unsigned long long)id, suffix);
    return open(path, flags | O_CLOEXEC, 0600);
}

static struct session *create(const char *task) {
    struct session *s = sessions;
    while (s < sessions + MAX_SESSIONS && s->open)
        s++;
    if (s == sessions + MAX_SESSIONS)
        return NULL;
    memset(s, 0, sizeof *s);
    struct reef_header h;
    s->id = FIRST_ID;
    while ((s->c_fd = region_file(s->id, "c", O_RDWR | O_CREAT | O_EXCL)) < 0 && errno == EEXIST)
        s->id++;
    s->d_fd = region_file(s->id, "d", O_RDWR | O_CREAT | O_TRUNC); // a peer killed halfway through drop() may have left it
    layout(&h, s->id, task);
    if (s->c_fd < 0 || s->d_fd < 0 || ftruncate(s->c_fd, (off_t)h.c_size) || ftruncate(s->d_fd, (off_t)h.d_size))
        fail("regions");
    map(s, h.c_size, h.d_size);
    *(struct reef_header *)s->d = h;
    point(s);
    set_tables(s);
    struct reef_header *shown = (struct reef_header *)s->d;
    shown->crc = crc32c(shown, sizeof h);
    s->c_hot->sq_tail = s->c_hot->cq_head = s->d_hot->sq_head = s->d_hot->cq_tail = option.first;
    for (uint32_t i = 0; i < option.slots; i++)
        s->slot[i].generation = option.first;
    own(s);
    if (option.corrupt && strcmp(option.corrupt, "file") == 0) {
        if (ftruncate(s->d_fd, (off_t)(h.d_size - REEF_PAGE)))
            fail("ftruncate");
    } else if (option.corrupt) {
        damage(s, option.corrupt);
    }
    return s;
}

// ---------------------------------------------------------------- requests

static void wake(struct session *s) {
    fence(); // SYNC POINT cq-waiting
    uint32_t waiting = load(&s->c_hot->cq_waiting);
    if (waiting & REEF_WAIT_FUTEX)
        syscall(SYS_futex, &s->d_hot->cq_tail, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    if (waiting & REEF_WAIT_SOCKET && s->socket >= 0)
        (void)!send(s->socket, "!", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
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
    store(&slot->state, status == 0              ? REEF_SLOT_DONE
                        : status == -ECANCELED ? REEF_SLOT_CANCELLED
                                               : REEF_SLOT_REJECTED);
    s->d_hot->stats.completed++;
    if (status < 0)
        s->d_hot->stats.failed++;
    store(&s->d_hot->cq_tail, strcmp(bad, "tail") == 0 ? tail + 1000 : tail + 1); // SYNC POINT cq-tail
    wake(s);
}

static void run(struct session *s, uint32_t index, uint16_t flags) {
    struct reef_d_slot *slot = &s->slot[index];
    const uint8_t *in = s->c + s->header->c_inputs_offset + index * s->header->c_inputs_stride;
    uint8_t *out = s->d + s->header->d_outputs_offset + index * s->header->d_outputs_stride;
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
    // SYNC POINT cancel-verdict
    store(&slot->cancel_verdict, (uint64_t)(uint32_t)verdict << 32 | (uint32_t)sqe->sequence);
    if (verdict == 0)
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
    if (sqe->reserved || sqe->reserved2 || sqe->flags & ~REEF_SQE_FLAGS || sqe->opcode > REEF_OP_CANCEL)
        return "reserved bits";
    const struct reef_d_slot *slot = &s->slot[sqe->slot];
    if (sqe->opcode == REEF_OP_INFER &&
        (sqe->generation != slot->generation + 1 || slot->state == REEF_SLOT_ACCEPTED ||
         slot->state == REEF_SLOT_RUNNING))
        return "generation or a busy slot";
    return NULL;
}

static bool take(struct session *s) {
    uint32_t tail = load(&s->c_hot->sq_tail); // SYNC POINT sq-tail
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
    store(&s->d_hot->sq_head, head + 1); // SYNC POINT sq-head
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
        int fds[3] = {s->c_fd, read_only, s->doorbell};
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
        struct session *s =
            hello.request == REEF_REQUEST_OPEN ? create(hello.task) : c_fd >= 0 ? reclaimed(&hello, c_fd) : NULL;
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
    s->open = false; // its addresses stay: the robust list runs through them
}

// ---------------------------------------------------------------- the loop

static bool turn(void) {
    bool busy = false, finish = let_go;
    if (finish)
        let_go = 0; // before the work: a signal during it must not be lost
    for (struct session *s = sessions; s < sessions + MAX_SESSIONS; s++) {
        if (!s->open)
            continue;
        while (take(s))
            busy = true;
        uint32_t announced = load(&s->c_hot->announce);
        s->d_hot->stats.preempted += announced - s->announced; // where the tests look for it
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
    fence(); // SYNC POINT need-wakeup
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
            look_at_descriptors(listener, option.delay_us ? &slice : NULL);
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
               number(arg, "--first", &option.first) || number(arg, "--ready", &option.ready)))
        fail(arg);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        parse(argv[i]);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!option.socket || !option.dir || strlen(option.socket) >= sizeof address.sun_path)
        fail("--socket and --dir are needed");
    strcpy(address.sun_path, option.socket);

    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    sigaddset(&signals, SIGTERM);
    if (!option.spin)
        sigprocmask(SIG_BLOCK, &signals, NULL); // delivered inside ppoll, so that none is lost
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGUSR1, &action, NULL);
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

    unlink(option.socket);
    int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 16))
        fail(option.socket);
    if (option.ready && write((int)option.ready, &(uint64_t){1}, 8) != 8)
        fail("ready");
    loop(listener);
    unlink(option.socket);
    return 0;
}
