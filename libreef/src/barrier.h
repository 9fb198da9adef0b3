/* SPDX-License-Identifier: Apache-2.0 */
/*
 * barrier.h: every atomic access of libreef. Nothing else in the library orders memory.
 *
 * The words are shared with another process that may die at any instruction, so there are no locks and no
 * compare-and-swap: one writer a word, release and acquire where data follows an index, and a sequentially consistent
 * fence where each side first writes its own word and then reads the other's. The SYNC POINT labels at each use name
 * the partner; reef_abi.h lists them.
 */
#ifndef REEF_BARRIER_H
#define REEF_BARRIER_H

#include <stdbool.h>
#include <stdint.h>

#define load_relaxed(word) __atomic_load_n((word), __ATOMIC_RELAXED)
#define load_acquire(word) __atomic_load_n((word), __ATOMIC_ACQUIRE)
#define store_relaxed(word, value) __atomic_store_n((word), (value), __ATOMIC_RELAXED)
#define store_release(word, value) __atomic_store_n((word), (value), __ATOMIC_RELEASE)

/* Store, fence, load: neither release nor acquire keeps a later load behind an earlier store. */
static inline void full_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

/* Reference counts are private to the process; they are here because they are atomic. */
static inline void reference_take(uint32_t *count) { __atomic_fetch_add(count, 1, __ATOMIC_RELAXED); }

/* true: that was the last one, and everything its holders did happened before. */
static inline bool reference_drop(uint32_t *count) { return __atomic_sub_fetch(count, 1, __ATOMIC_ACQ_REL) == 0; }

static inline void spin_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

#endif
