// SPDX-License-Identifier: Apache-2.0
// The only place of the engine where memory shared with another process is loaded, stored and ordered.
// The labels of SYNC POINTS are explained in reef_abi.h; the partner of each is in libreef.
#pragma once
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <type_traits>

namespace reef::sync {

template <class T> T load_acquire(const T& word) { return __atomic_load_n(&word, __ATOMIC_ACQUIRE); }
template <class T> T load_relaxed(const T& word) { return __atomic_load_n(&word, __ATOMIC_RELAXED); }
template <class T, class V> void store_release(T& word, V value) {
    __atomic_store_n(&word, static_cast<T>(value), __ATOMIC_RELEASE);
}
template <class T, class V> void store_relaxed(T& word, V value) {
    __atomic_store_n(&word, static_cast<T>(value), __ATOMIC_RELAXED);
}

// Orders a store before a later load; acquire and release alone do not.
inline void full_fence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

// Copies once from memory that its owner may change meanwhile: whatever is checked afterwards is the copy.
template <class T> void copy_once(T& copy, const T& shared) {
    std::memcpy(&copy, &shared, sizeof(T));
    asm volatile("" : "+m"(copy) : : "memory");
}

// Counters with one writer, read by others: no locked instruction.
template <class T> void add_relaxed(T& counter, T value) { store_relaxed(counter, load_relaxed(counter) + value); }

// A structure of counters, each read whole.
template <class T> T copy_relaxed(const T& counters) {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % sizeof(uint64_t) == 0);
    std::array<uint64_t, sizeof(T) / sizeof(uint64_t)> words;
    for (size_t i = 0; i < words.size(); ++i) {
        words[i] = load_relaxed(reinterpret_cast<const uint64_t*>(&counters)[i]);
    }
    return std::bit_cast<T>(words);
}

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

inline uint64_t monotonic_ns() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace reef::sync
