// SPDX-License-Identifier: Apache-2.0
// peer_region.h: the peer's options, its sessions and their regions: laid out, mapped, and damaged on request.
#ifndef PEER_REGION_H
#define PEER_REGION_H
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <reef_abi.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MAX_SESSIONS 16
#define FIRST_ID 100
#define STRIDE (256ull << 20)  // address space for each session's D: the same distance from its robust-list node

#define load(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define store(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define fence() __atomic_thread_fence(__ATOMIC_SEQ_CST)

static struct {
    const char *socket, *dir, *corrupt, *corrupt_cqe;
    uint32_t slots, bytes, policy, hold, spin, die_after, abi, refuse, refuse_reclaim, silent, fds, quarantine_after;
    uint32_t read_only, hang_up, first, ready, wrong_region, payload, damage_output;
    uint64_t delay_us;
} option = {.slots = 4, .bytes = 64, .fds = 3};

struct session {
    bool open;
    uint64_t id;
    int socket, doorbell, c_fd, d_fd;
    uint8_t *c, *d;
    struct reef_header *header;  // our own copy: what the client sees may be damaged
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
static uint8_t *arena;  // MAX_SESSIONS * STRIDE of reserved addresses
static struct robust_list_head robust;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(2);
}

// Byte by byte, on purpose another algorithm than libreef's. `before`: the CRC of what goes before; 0: nothing.
static uint32_t crc32c_after(uint32_t before, const void *data, size_t size) {
    static uint32_t table[256];
    if (!table[1]) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t value = i;
            for (int bit = 0; bit < 8; bit++)
                value = value & 1 ? (value >> 1) ^ 0x82f63b78u : value >> 1;
            table[i] = value;
        }
    }
    uint32_t crc = ~before;
    for (size_t i = 0; i < size; i++)
        crc = table[(crc ^ ((const uint8_t *)data)[i]) & 255] ^ (crc >> 8);
    return ~crc;
}

static uint32_t crc32c(const void *data, size_t size) { return crc32c_after(0, data, size); }

// ---------------------------------------------------------------- regions

static uint64_t round_up(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }

static void set_tensor(struct reef_tensor_desc *tensor, const char *name, uint32_t dtype, uint32_t rank, uint64_t a,
                       uint64_t b, uint64_t size, uint64_t offset) {
    *tensor = (struct reef_tensor_desc){.dtype = dtype, .rank = rank, .shape = {a, b}, .size = size, .offset = offset};
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
    CASE("tensor-rank-huge") s->tensor[3].rank = 0xffffffffu;
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
    h->sqe_flags_required = option.payload ? REEF_SQE_PAYLOAD_CRC : 0;
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
    store(&s->d_hot->daemon_epoch, epoch);  // SYNC POINT daemon-epoch
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
    s->d_fd =
        region_file(s->id, "d", O_RDWR | O_CREAT | O_TRUNC);  // a peer killed halfway through drop() may have left it
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

#endif
