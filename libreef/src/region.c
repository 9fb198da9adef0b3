/* SPDX-License-Identifier: Apache-2.0 */
/*
 * region.c: checks and maps the two regions of a session, and describes the models in them.
 *
 * Every number of the header is checked before it is used, against the sizes that the kernel reports: a wrong region is
 * refused with -EBADMSG and a reason, it never becomes a bad address. What is read later (names, shapes) is copied.
 */
#define _GNU_SOURCE
#include "barrier.h"
#include "session.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAPPING_MAGIC 0x50414d52u

/* ---------------------------------------------------------------- checks */

struct area {
    const char *name;
    uint64_t start, size;
};

/* [offset, offset + count * stride) as an area; false: it does not fit, or it is not aligned. */
static bool area_of(struct area *area, const char *name, uint64_t offset, uint64_t count, uint64_t stride,
                    uint64_t align, uint64_t region_size) {
    uint64_t size, end;
    *area = (struct area){.name = name, .start = offset};
    if (__builtin_mul_overflow(count, stride, &size) || __builtin_add_overflow(offset, size, &end))
        return false;
    area->size = size;
    return end <= region_size && offset % align == 0;
}

static bool disjoint(const struct area *areas, int n, char *reason) {
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < i; j++) {
            const struct area *a = &areas[i], *b = &areas[j];
            if (a->size && b->size && a->start < b->start + b->size && b->start < a->start + a->size) {
                explain(reason, "the region's header is damaged: %s overlaps %s", a->name, b->name);
                return false;
            }
        }
    }
    return true;
}

static int check_areas(const struct reef_header *h, char *reason) {
    struct area c[4], d[6];
    int n = 0;
    bool fit = area_of(&c[n++], "C's hot words", 0, 1, sizeof(struct reef_c_hot), REEF_LINE, h->c_size);
    fit &= area_of(&c[n++], "the SQ", h->c_sq_offset, h->entries, sizeof(struct reef_sqe), 64, h->c_size);
    fit &= area_of(&c[n++], "C's slots", h->c_slots_offset, h->slots, sizeof(struct reef_c_slot), 64, h->c_size);
    fit &= area_of(&c[n++], "the inputs", h->c_inputs_offset, h->slots, h->c_inputs_stride, REEF_PAGE, h->c_size);
    if (!disjoint(c, n, reason))
        return -EBADMSG;
    n = 0;
    fit &= area_of(&d[n++], "the header and D's hot words", 0, 1, REEF_PAGE + sizeof(struct reef_d_hot), REEF_PAGE,
                   h->d_size);
    fit &= area_of(&d[n++], "the CQ", h->d_cq_offset, h->entries, sizeof(struct reef_cqe), 64, h->d_size);
    fit &= area_of(&d[n++], "D's slots", h->d_slots_offset, h->slots, sizeof(struct reef_d_slot), 64, h->d_size);
    fit &= area_of(&d[n++], "the models", h->d_models_offset, h->models, sizeof(struct reef_model_desc), 64, h->d_size);
    fit &= area_of(&d[n++], "the tensors", h->d_tensors_offset, h->tensors, sizeof(struct reef_tensor_desc), 64,
                   h->d_size);
    fit &= area_of(&d[n++], "the outputs", h->d_outputs_offset, h->slots, h->d_outputs_stride, REEF_PAGE, h->d_size);
    if (!disjoint(d, n, reason))
        return -EBADMSG;
    fit &= h->c_inputs_stride % REEF_PAGE == 0 && h->d_outputs_stride % REEF_PAGE == 0;
    if (!fit)
        explain(reason, "the region's header is damaged: an area is outside of its region or not aligned");
    return fit ? 0 : -EBADMSG;
}

static int check_header(const struct reef_header *h, const struct reef_welcome *welcome, char *reason) {
    const char *wrong = NULL;
    uint32_t entries = 2;
    while (entries < 2 * (uint64_t)h->slots && entries < 2 * REEF_MAX_SLOTS)
        entries *= 2;
    if (h->session_id != welcome->session_id)
        wrong = "it belongs to another session";
    else if (h->c_size != welcome->c_size || h->d_size != welcome->d_size)
        wrong = "its sizes are not those of the regions";
    else if (!h->slots || h->slots > REEF_MAX_SLOTS || h->entries != entries)
        wrong = "impossible numbers of slots or entries";
    else if (!h->models || h->models > REEF_MAX_MODELS || h->tensors > REEF_MAX_TENSORS)
        wrong = "impossible numbers of models or tensors";
    else if (h->task_class > REEF_CLASS_BE || h->queue_policy > REEF_QUEUE_LATEST)
        wrong = "unknown class or queue policy";
    else if (h->sqe_flags_required & ~(uint32_t)(REEF_SQE_CRC | REEF_SQE_PAYLOAD_CRC))
        wrong = "it requires flags that this libreef does not know";
    else if (!memchr(h->task, 0, sizeof h->task))
        wrong = "its task's name has no end";
    if (wrong)
        explain(reason, "the region's header is damaged: %s", wrong);
    return wrong ? -EBADMSG : check_areas(h, reason);
}

static uint64_t item_size(uint32_t dtype) {
    static const uint8_t size[] = {[REEF_FLOAT32] = 4, [REEF_UINT8] = 1,   [REEF_INT8] = 1,   [REEF_UINT16] = 2,
                                   [REEF_INT16] = 2,   [REEF_INT32] = 4,   [REEF_INT64] = 8,  [REEF_BOOL] = 1,
                                   [REEF_FLOAT16] = 2, [REEF_FLOAT64] = 8, [REEF_UINT32] = 4, [REEF_UINT64] = 8};
    return dtype < sizeof size ? size[dtype] : 0;
}

static bool tensor_good(const struct reef_tensor_desc *tensor, uint64_t stride) {
    uint64_t bytes = item_size(tensor->dtype), end;
    if (!memchr(tensor->name, 0, sizeof tensor->name) || !bytes || tensor->rank > REEF_MAX_RANK)
        return false;
    for (uint32_t i = 0; i < tensor->rank; i++)
        if (__builtin_mul_overflow(bytes, tensor->shape[i], &bytes))
            return false;
    return bytes == tensor->size && tensor->offset % REEF_PAGE == 0 &&
           !__builtin_add_overflow(tensor->offset, tensor->size, &end) && end <= stride;
}

/* The private copies: names end, ranges lie inside of the table, tensors inside of a slot's area. */
static int check_models(const struct reef_session *s, char *reason) {
    for (uint32_t m = 0; m < s->models; m++) {
        const struct reef_model_desc *model = &s->model[m];
        uint64_t inputs_end = (uint64_t)model->first_input + model->inputs;
        uint64_t outputs_end = (uint64_t)model->first_output + model->outputs;
        if (!memchr(model->name, 0, sizeof model->name) || inputs_end > s->tensors || outputs_end > s->tensors) {
            explain(reason, "the region's table of models is damaged: model %u", m);
            return -EBADMSG;
        }
        for (uint64_t t = model->first_input; t < inputs_end; t++) {
            if (!tensor_good(&s->tensor[t], s->inputs_stride)) {
                explain(reason, "the region's table of tensors is damaged: input %u of %s",
                        (unsigned)(t - model->first_input), model->name);
                return -EBADMSG;
            }
        }
        for (uint64_t t = model->first_output; t < outputs_end; t++) {
            if (!tensor_good(&s->tensor[t], s->outputs_stride)) {
                explain(reason, "the region's table of tensors is damaged: output %u of %s",
                        (unsigned)(t - model->first_output), model->name);
                return -EBADMSG;
            }
        }
    }
    return 0;
}

/* A later minor may have a longer header; its CRC covers all of it. */
static int read_header(struct reef_header *header, const uint8_t *d, size_t d_size, crc_function crc, char *reason) {
    union {
        struct reef_header header;
        uint8_t bytes[REEF_PAGE];
    } copy;
    if (d_size < REEF_PAGE + sizeof(struct reef_d_hot)) {
        explain(reason, "the region is too small to have a header");
        return -EBADMSG;
    }
    memcpy(copy.bytes, d, sizeof copy.bytes);
    const struct reef_header *h = &copy.header;
    if (h->magic != REEF_MAGIC) {
        explain(reason, "the region's header is damaged: wrong magic number");
        return -EBADMSG;
    }
    if (h->abi_major != REEF_ABI_MAJOR || h->features_incompatible) {
        explain(reason, "the region has ABI %u.%u (features %#llx), this libreef speaks %u.%u", h->abi_major,
                h->abi_minor, (unsigned long long)h->features_incompatible, REEF_ABI_MAJOR, REEF_ABI_MINOR);
        return -EPROTONOSUPPORT;
    }
    uint32_t size = h->header_size, expected = h->crc;
    if (size < sizeof *h || size > sizeof copy.bytes) {
        explain(reason, "the region's header is damaged: a size of %u bytes", size);
        return -EBADMSG;
    }
    copy.header.crc = 0;
    if (crc(0, copy.bytes, size) != expected) {
        explain(reason, "the region's header is damaged: wrong CRC");
        return -EBADMSG;
    }
    copy.header.crc = expected;
    *header = copy.header;
    return 0;
}

/* ---------------------------------------------------------------- mapping */

static int size_of(int fd, uint64_t expected, size_t *size) {
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (st.st_size <= 0 || (uint64_t)st.st_size != expected)
        return -EBADMSG;
    *size = (size_t)st.st_size;
    return 0;
}

/* Mapped once, every page present: a first touch inside of a request would cost more than the request. Locking may be
 * refused (RLIMIT_MEMLOCK), a kernel may not know MADV_POPULATE_WRITE; both only make it faster. */
static void *map_region(int fd, size_t size, int protection) {
    void *at = mmap(NULL, size, protection, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (at == MAP_FAILED)
        return NULL;
    if (madvise(at, size, MADV_DONTFORK) < 0) {
        munmap(at, size);
        return NULL;
    }
#ifdef MADV_POPULATE_WRITE
    if (protection & PROT_WRITE)
        (void)madvise(at, size, MADV_POPULATE_WRITE);
#endif
    (void)mlock(at, size);
    return at;
}

static struct mapping *mapping_new(void) {
    struct mapping *mapping =
        mmap(NULL, REEF_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (mapping == MAP_FAILED)
        return NULL;
    if (madvise(mapping, REEF_PAGE, MADV_WIPEONFORK) < 0) {
        munmap(mapping, REEF_PAGE);
        return NULL;
    }
    mapping->magic = MAPPING_MAGIC;
    mapping->references = 1;
    return mapping;
}

/* In a forked child the page is empty and the regions are not there. The page itself stays: without the count nobody
 * knows who else still holds it. */
void mapping_drop(struct mapping *mapping) {
    if (!mapping || !mapping->magic || !reference_drop(&mapping->references))
        return;
    if (mapping->c)
        munmap(mapping->c, mapping->c_size);
    if (mapping->d)
        munmap((void *)mapping->d, mapping->d_size);
    munmap(mapping, REEF_PAGE);
}

static int copy_tables(struct reef_session *s, const uint8_t *d, char *reason) {
    const struct reef_header *h = &s->header;
    s->model = calloc(h->models, sizeof *s->model);
    s->tensor = calloc(h->tensors ? h->tensors : 1, sizeof *s->tensor);
    s->slot = calloc(h->slots, sizeof *s->slot);
    s->stash = calloc(h->entries, sizeof *s->stash);
    if (!s->model || !s->tensor || !s->slot || !s->stash)
        return -ENOMEM;
    memcpy(s->model, d + h->d_models_offset, h->models * sizeof *s->model);
    memcpy(s->tensor, d + h->d_tensors_offset, h->tensors * sizeof *s->tensor);
    return check_models(s, reason);
}

static void point_into(struct reef_session *s, uint8_t *c, const uint8_t *d) {
    const struct reef_header *h = &s->header;
    s->c = (struct reef_c_hot *)c;
    s->d = (const struct reef_d_hot *)(d + REEF_PAGE);
    s->sq = (struct reef_sqe *)(c + h->c_sq_offset);
    s->cq = (const struct reef_cqe *)(d + h->d_cq_offset);
    s->c_slots = (struct reef_c_slot *)(c + h->c_slots_offset);
    s->d_slots = (const struct reef_d_slot *)(d + h->d_slots_offset);
    s->inputs = c + h->c_inputs_offset;
    s->outputs = d + h->d_outputs_offset;
    s->inputs_stride = h->c_inputs_stride;
    s->outputs_stride = h->d_outputs_stride;
    s->entries = h->entries;
    s->mask = h->entries - 1;
    s->slots = h->slots;
    s->models = h->models;
    s->tensors = h->tensors;
}

int region_map(struct reef_session *s, const struct reef_welcome *welcome, int c_fd, int d_fd) {
    s->mapping = mapping_new();
    if (!s->mapping)
        return -ENOMEM;
    struct mapping *mapping = s->mapping;
    int rc = size_of(c_fd, welcome->c_size, &mapping->c_size);
    if (rc == 0)
        rc = size_of(d_fd, welcome->d_size, &mapping->d_size);
    if (rc < 0) {
        explain(s->reason, "the regions do not have the sizes that the daemon named");
        return rc;
    }
    mapping->c = map_region(c_fd, mapping->c_size, PROT_READ | PROT_WRITE);
    mapping->d = map_region(d_fd, mapping->d_size, PROT_READ);
    if (!mapping->c || !mapping->d) {
        explain(s->reason, "cannot map the regions (%zu and %zu bytes)", mapping->c_size, mapping->d_size);
        return -ENOMEM;
    }
    s->crc = crc32c_best();
    rc = read_header(&s->header, mapping->d, mapping->d_size, s->crc, s->reason);
    if (rc == 0)
        rc = check_header(&s->header, welcome, s->reason);
    if (rc < 0)
        return rc;
    point_into(s, mapping->c, mapping->d);
    rc = copy_tables(s, mapping->d, s->reason);
    if (rc < 0)
        return rc;
    s->sq_head = load_acquire(&s->d->sq_head);
    s->cq_head = load_relaxed(&s->c->cq_head);
    s->sequence = load_relaxed(&s->c->sq_tail);
    if (s->sq_head != (uint32_t)s->sequence || load_acquire(&s->d->cq_tail) != s->cq_head) {
        explain(s->reason, "the region is not fresh: its rings are not empty");
        return -EBADMSG;
    }
    for (uint32_t i = 0; i < s->slots; i++)
        s->slot[i].generation = load_relaxed(&s->d_slots[i].generation);
    return 0;
}

void *reef_hold(reef_session *session) {
    if (!usable(session))
        return NULL;
    reference_take(&session->mapping->references);
    return session->mapping;
}

void reef_unhold(void *mapping) {
    int saved = errno;
    mapping_drop(mapping);
    errno = saved;
}

/* ---------------------------------------------------------------- models */

int reef_model_count(const reef_session *session) { return usable(session) ? (int)session->models : -EINVAL; }

int reef_model_find(const reef_session *session, const char *name) {
    if (!usable(session) || !name)
        return -EINVAL;
    for (uint32_t m = 0; m < session->models; m++)
        if (strcmp(session->model[m].name, name) == 0)
            return (int)m;
    return -ENOENT;
}

int reef_model_info(const reef_session *session, uint32_t model, struct reef_model_info *info) {
    if (!usable(session) || !info || model >= session->models)
        return -EINVAL;
    const struct reef_model_desc *desc = &session->model[model];
    *info = (struct reef_model_info){.name = desc->name, .inputs = desc->inputs, .outputs = desc->outputs};
    return 0;
}

static int tensor_info(const struct reef_tensor_desc *desc, struct reef_tensor_info *info) {
    *info = (struct reef_tensor_info){
        .name = desc->name, .dtype = desc->dtype, .rank = desc->rank, .shape = desc->shape, .size = desc->size};
    return 0;
}

int reef_input_info(const reef_session *session, uint32_t model, uint32_t input, struct reef_tensor_info *info) {
    if (!usable(session) || !info || model >= session->models || input >= session->model[model].inputs)
        return -EINVAL;
    return tensor_info(&session->tensor[session->model[model].first_input + input], info);
}

int reef_output_info(const reef_session *session, uint32_t model, uint32_t output, struct reef_tensor_info *info) {
    if (!usable(session) || !info || model >= session->models || output >= session->model[model].outputs)
        return -EINVAL;
    return tensor_info(&session->tensor[session->model[model].first_output + output], info);
}

const struct reef_header *reef_header(const reef_session *session) { return usable(session) ? &session->header : NULL; }
