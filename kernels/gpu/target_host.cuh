// SPDX-License-Identifier: Apache-2.0
// The vocabulary of portable.cuh on a CPU, for tests and for the stand-in drivers: every thread of a block is a fiber
// (host/fibers.hpp). It is stricter than a GPU: an asynchronous copy lands only when it is waited for, shared memory
// starts as garbage, and a thread that leaves while others wait at a barrier, or with copies under way, is an error.
#pragma once
#include "host/fibers.hpp"

#define REEF_DEVICE static inline
#define REEF_MEMBER inline
#define REEF_TENSOR_CORES 1
#define REEF_ASYNC_COPIES 1
#define REEF_MOST_STEPS 1

REEF_DEVICE int thread_index() { return reef_host::current->index; }
REEF_DEVICE int block_index() { return reef_host::current->block->index; }
REEF_DEVICE void barrier() { reef_host::wait(reef_host::current->block->everyone); }
REEF_DEVICE u8* shared_memory() { return reef_host::current->block->memory; }

REEF_DEVICE float bits_to_float(u32 bits) { return __builtin_bit_cast(float, bits); }
REEF_DEVICE u32 float_to_bits(float value) { return __builtin_bit_cast(u32, value); }
REEF_DEVICE float to_float(Half value) { return reef_host::half_to_float(value.bits); }
REEF_DEVICE Half to_half(float value) { return Half{reef_host::float_to_half(value)}; }
REEF_DEVICE float fused_multiply_add(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
REEF_DEVICE float dot2(u32 a, u32 b, float sum) {
    sum = fused_multiply_add(to_float(Half{(u16)a}), to_float(Half{(u16)b}), sum);
    return fused_multiply_add(to_float(Half{(u16)(a >> 16)}), to_float(Half{(u16)(b >> 16)}), sum);
}

REEF_DEVICE Chunk load_chunk(const void* from, bool valid) {
    Chunk chunk{};
    if (valid) chunk = *(const Chunk*)from;
    return chunk;
}

REEF_DEVICE void copy_async(Chunk* shared, const void* global, bool valid) {
    reef_host::queue_copy(shared, valid ? global : nullptr);
}
REEF_DEVICE void copies_commit() { reef_host::commit_copies(); }
template <int Pending> REEF_DEVICE void copies_wait() { reef_host::land_copies(Pending); }

REEF_DEVICE u32 load_relaxed(const u32* word) { return reef_host::load_word(word); }
REEF_DEVICE void settle(int&) {}
template <class T> REEF_DEVICE void settle(const T*&) {}
REEF_DEVICE u32 load_relaxed_if(const u32* word, bool wanted, u32 otherwise) {
    return wanted ? load_relaxed(word) : otherwise;
}
REEF_DEVICE void keep_order() {}
REEF_DEVICE void store_relaxed(u32* word, u32 value) { __atomic_store_n(word, value, __ATOMIC_RELAXED); }
REEF_DEVICE void lower(u32* word, u32 value) {
    u32 before = __atomic_load_n(word, __ATOMIC_RELAXED);
    while (value < before && !__atomic_compare_exchange_n(word, &before, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}
REEF_DEVICE Chunk load_words(const u32* words) { return load_chunk(words, true); }
REEF_DEVICE void publish(u32* word, u32 value) { __atomic_store_n(word, value, __ATOMIC_RELAXED); }
REEF_DEVICE void publish_release(u32* word, u32 value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }

REEF_DEVICE void dependency_launch() {}
REEF_DEVICE void dependency_wait() {}

REEF_DEVICE u32 cluster_rank() { return reef_host::current->block->rank; }
REEF_DEVICE void cluster_barrier() { reef_host::wait(reef_host::current->block->cluster->everyone); }
REEF_DEVICE void cluster_meeting() { cluster_barrier(); }
REEF_DEVICE Chunk cluster_load(const void* pointer, u32 rank) {
    reef_host::Block* mine = reef_host::current->block;
    return *(const Chunk*)(mine->cluster->blocks[rank].memory + ((const u8*)pointer - mine->memory));
}

REEF_DEVICE float exp2_fast(float x) { return __builtin_exp2f(x); }
REEF_DEVICE float log2_fast(float x) { return __builtin_log2f(x); }
REEF_DEVICE float reciprocal(float x) { return 1.0f / x; }
REEF_DEVICE float root(float x) { return __builtin_sqrtf(x); }

REEF_DEVICE void load_matrices(u32 (&out)[4], const Chunk* row) {
    reef_host::Warp& warp = reef_host::warp();
    int lane = thread_index() % 32;
    warp.row[lane] = row;
    reef_host::wait(warp.everyone);
    for (int m = 0; m < 4; m++) out[m] = ((const Chunk*)warp.row[m * 8 + lane / 4])->word[lane % 4];
    reef_host::wait(warp.everyone);
}
REEF_DEVICE void load_matrices_transposed(u32 (&out)[4], const Chunk* row) {
    reef_host::Warp& warp = reef_host::warp();
    int lane = thread_index() % 32;
    warp.row[lane] = row;
    reef_host::wait(warp.everyone);
    for (int m = 0; m < 4; m++) {
        u32 pair[2];
        for (int i = 0; i < 2; i++) pair[i] = ((const Half*)warp.row[m * 8 + lane % 4 * 2 + i])[lane / 4].bits;
        out[m] = pair[0] | pair[1] << 16;
    }
    reef_host::wait(warp.everyone);
}
REEF_DEVICE float lane_exchange(float value, int mask) {
    reef_host::Warp& warp = reef_host::warp();
    int lane = thread_index() % 32;
    warp.a[lane][0] = float_to_bits(value);
    reef_host::wait(warp.everyone);
    float other = bits_to_float(warp.a[lane ^ mask][0]);
    reef_host::wait(warp.everyone);
    return other;
}
REEF_DEVICE void multiply_matrices(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    reef_host::Warp& warp = reef_host::warp();
    int lane = thread_index() % 32;
    for (int i = 0; i < 4; i++) warp.a[lane][i] = a[i];
    warp.b[lane][0] = b0;
    warp.b[lane][1] = b1;
    reef_host::wait(warp.everyone);
    for (int i = 0; i < 4; i++) {
        int row = lane / 4, high = i / 2, column = lane % 4 * 2 + i % 2;
        for (int k = 0; k < 16; k += 2)
            c[i] = dot2(warp.a[row * 4 + k % 8 / 2][high + k / 8 * 2], warp.b[column * 4 + k % 8 / 2][k / 8], c[i]);
    }
    reef_host::wait(warp.everyone);
}

REEF_DEVICE u32 warp_or(u32 value) {
    reef_host::Warp& warp = reef_host::warp();
    warp.a[thread_index() % 32][0] = value;
    reef_host::wait(warp.everyone);
    u32 all = 0;
    for (int lane = 0; lane < warp.everyone.members; lane++) all |= warp.a[lane][0];
    reef_host::wait(warp.everyone);
    return all;
}

// The stand-in drivers read the cluster size, which a GPU's code object holds too.
#define REEF_PLAIN(name, threads, resident, cluster, body)    \
    extern "C" const int name##_cluster __attribute__((used)) = 0 cluster; \
    extern "C" void name(const Args& args, const Place&) { body<false>(args, Place{}); }
#define REEF_PREEMPTIBLE(name, threads, resident, cluster, body) \
    extern "C" void name##_p(const Args& args, const Place& place) { body<true>(args, place); }
#define REEF_CLUSTER(blocks) +blocks
#define REEF_RESIDENT(blocks)
#define REEF_WINDOW(name, ...) extern "C" void name(const Args& args, const Place& place) __VA_ARGS__
