// SPDX-License-Identifier: Apache-2.0
// Preloaded by test_allocations.py: counts each thread's allocations. The engine publishes its own count through the weak
// symbol reef_thread_allocations.
#include <stddef.h>
#include <stdint.h>

void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* old, size_t size);
void* __libc_memalign(size_t alignment, size_t size);
void __libc_free(void* old);

static _Thread_local uint64_t allocations __attribute__((tls_model("initial-exec")));

uint64_t reef_thread_allocations(void) { return allocations; }

void* malloc(size_t size) {
    ++allocations;
    return __libc_malloc(size);
}

void* calloc(size_t count, size_t size) {
    ++allocations;
    return __libc_calloc(count, size);
}

void* realloc(void* old, size_t size) {
    ++allocations;
    return __libc_realloc(old, size);
}

void* memalign(size_t alignment, size_t size) {
    ++allocations;
    return __libc_memalign(alignment, size);
}

void* aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void** out, size_t alignment, size_t size) {
    *out = memalign(alignment, size);
    return *out ? 0 : 12;
}

void free(void* old) {
    allocations += old != NULL;  // giving back is as slow
    __libc_free(old);
}
