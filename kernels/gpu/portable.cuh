// SPDX-License-Identifier: Apache-2.0
// What every kernel is written in: one small vocabulary with three meanings.
//
//   target_cuda.cuh   NVIDIA, sm_80 and later (NVRTC or nvcc): mma.sync, cp.async, clusters on sm_90
//   target_hip.cuh    AMD, gfx906 (hiprtc or clang): dot products of half pairs, no asynchronous copies
//   target_host.cuh   any CPU (g++): each thread of a block is a fiber, so that a kernel can be tested without a GPU
//
// No header of a vendor is included: the sources travel as one text in a resource and compile with the bare compiler.
// Each target defines
//   thread_index, block_index, barrier, shared_memory
//   to_float, to_half, dot2                       halves are raw bits (Half); arithmetic is in float
//   load_chunk                                    16 bytes from memory, zeros when not valid
//   copy_async, copies_commit, copies_wait<N>     the same from global to shared memory, without waiting
//   load_relaxed (and _if), store_relaxed, lower, publish   words that other blocks or the host see
//   load_words                                    16 bytes that an earlier launch wrote
//   dependency_wait, dependency_launch            programmatic dependent launch; nothing where it does not exist
//   load_matrices, multiply_matrices, ...         tensor cores and lanes of a warp, where REEF_TENSOR_CORES is 1
//   warp_or                                       of the values of a warp's lanes
//   cluster_rank, cluster_load                    blocks of one cluster, and each other's shared memory
//   cluster_barrier, cluster_meeting              the latter orders nothing: all came so far with what they had to use
//   keep_order                                    loads before it are issued before those behind it
//   settle                                        a value that is computed here, not where it is used first
//   exp2_fast, log2_fast, reciprocal, root        one instruction, about one unit in the last place
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

struct Half {
    u16 bits;
};

// The unit of every copy: eight halves or four floats.
struct alignas(16) Chunk {
    u32 word[4];
};

#if defined(REEF_HOST)
#include "target_host.cuh"
#elif defined(__HIP__) || defined(__HIPCC_RTC__)
#include "target_hip.cuh"
#else
#include "target_cuda.cuh"
#endif

// What follows such a condition is kept out of the way: instructions are fetched in order, and a jump over a rare case
// waits for code that nobody has fetched yet.
#define REEF_RARELY(condition) __builtin_expect((condition), 0)

// Pointers of one launch, in the order of the instance's arguments.
struct Args {
    void* p[8];
};

template <typename T> struct Traits;
template <> struct Traits<float> {
    static constexpr int chunk = 4;  // elements in 16 bytes
};
template <> struct Traits<Half> {
    static constexpr int chunk = 8;
};

REEF_DEVICE float as_float(float value) { return value; }
REEF_DEVICE float as_float(Half value) { return to_float(value); }
REEF_DEVICE float as_float(u8 value) { return (float)value; }
REEF_DEVICE float as_float(int value) { return (float)value; }
REEF_DEVICE void from_float(float value, float& out) { out = value; }
REEF_DEVICE void from_float(float value, Half& out) { out = to_half(value); }

// One chunk of T as floats, and back. `valid` elements are kept, the others are zero.
REEF_DEVICE void unpack(const Chunk& chunk, float (&out)[4], float) {
#pragma unroll
    for (int i = 0; i < 4; i++) out[i] = bits_to_float(chunk.word[i]);
}
REEF_DEVICE void unpack(const Chunk& chunk, float (&out)[8], Half) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out[2 * i] = to_float(Half{(u16)(chunk.word[i] & 0xffff)});
        out[2 * i + 1] = to_float(Half{(u16)(chunk.word[i] >> 16)});
    }
}
REEF_DEVICE Chunk pack(const float (&in)[4], float) {
    Chunk chunk;
#pragma unroll
    for (int i = 0; i < 4; i++) chunk.word[i] = float_to_bits(in[i]);
    return chunk;
}
REEF_DEVICE Chunk pack(const float (&in)[8], Half) {
    Chunk chunk;
#pragma unroll
    for (int i = 0; i < 4; i++) chunk.word[i] = to_half(in[2 * i]).bits | (u32)to_half(in[2 * i + 1]).bits << 16;
    return chunk;
}

// The sum of the products of two chunks of T, added to `total` in order.
REEF_DEVICE float dot(const Chunk& a, const Chunk& b, float total, float) {
#pragma unroll
    for (int i = 0; i < 4; i++) total = fused_multiply_add(bits_to_float(a.word[i]), bits_to_float(b.word[i]), total);
    return total;
}
REEF_DEVICE float dot(const Chunk& a, const Chunk& b, float total, Half) {
#pragma unroll
    for (int i = 0; i < 4; i++) total = dot2(a.word[i], b.word[i], total);
    return total;
}
