// SPDX-License-Identifier: Apache-2.0
// The vocabulary of portable.cuh on AMD GPUs, as compiler builtins. Written for gfx906 (MI50, MI60): waves of 64, 64 KiB
// of LDS, v_dot2_f32_f16, no matrix units, no asynchronous copies, no clusters.
#pragma once

#define REEF_DEVICE static inline __attribute__((device, always_inline))
#define REEF_MEMBER inline __attribute__((device, always_inline))
#define REEF_TENSOR_CORES 0
#define REEF_ASYNC_COPIES 0
#define REEF_MOST_STEPS 2  // of a k-tile unrolled: the compiler loads all of them first, and runs out of registers

REEF_DEVICE int thread_index() { return __builtin_amdgcn_workitem_id_x(); }
REEF_DEVICE int block_index() { return __builtin_amdgcn_workgroup_id_x(); }
REEF_DEVICE void barrier() {
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}


extern __attribute__((shared)) __attribute__((aligned(128))) u8 reef_shared_memory[];
REEF_DEVICE u8* shared_memory() { return (u8*)reef_shared_memory; }

REEF_DEVICE float bits_to_float(u32 bits) { return __builtin_bit_cast(float, bits); }
REEF_DEVICE u32 float_to_bits(float value) { return __builtin_bit_cast(u32, value); }
REEF_DEVICE float to_float(Half value) { return (float)__builtin_bit_cast(_Float16, value.bits); }
REEF_DEVICE Half to_half(float value) { return Half{__builtin_bit_cast(u16, (_Float16)value)}; }
REEF_DEVICE float fused_multiply_add(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
typedef _Float16 HalfPair __attribute__((ext_vector_type(2)));
REEF_DEVICE float dot2(u32 a, u32 b, float sum) {
    return __builtin_amdgcn_fdot2(__builtin_bit_cast(HalfPair, a), __builtin_bit_cast(HalfPair, b), sum, false);
}

// As a vector: a conditional copy of a struct would go through scratch memory.
typedef u32 Words __attribute__((ext_vector_type(4)));
REEF_DEVICE Chunk load_chunk(const void* from, bool valid) {
    Words words = {0, 0, 0, 0};
    if (valid) words = *(const Words*)from;
    return Chunk{{words.x, words.y, words.z, words.w}};
}

REEF_DEVICE void copies_commit() {}
template <int Pending> REEF_DEVICE void copies_wait() {}

// System scope: the epoch may lie in memory that the host writes directly.
REEF_DEVICE u32 load_relaxed(const u32* word) {
    return __hip_atomic_load(word, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_SYSTEM);
}
REEF_DEVICE void settle(int&) {}
template <class T> REEF_DEVICE void settle(const T*&) {}
REEF_DEVICE u32 load_relaxed_if(const u32* word, bool wanted, u32 otherwise) {
    return wanted ? load_relaxed(word) : otherwise;
}
REEF_DEVICE u32 warp_or(u32 value) { return value; }  // for clusters only
REEF_DEVICE void keep_order() {}
REEF_DEVICE void store_relaxed(u32* word, u32 value) {
    __hip_atomic_store(word, value, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
}
REEF_DEVICE void lower(u32* word, u32 value) {
    __hip_atomic_fetch_min(word, value, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
}
REEF_DEVICE Chunk load_words(const u32* words) { return load_chunk(words, true); }
REEF_DEVICE void publish(u32* word, u32 value) {
    __hip_atomic_store(word, value, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_SYSTEM);
}
REEF_DEVICE void publish_release(u32* word, u32 value) {
    __hip_atomic_store(word, value, __ATOMIC_RELEASE, __HIP_MEMORY_SCOPE_SYSTEM);
}

REEF_DEVICE void dependency_launch() {}
REEF_DEVICE void dependency_wait() {}

REEF_DEVICE u32 cluster_rank() { return 0; }
REEF_DEVICE void cluster_barrier() { barrier(); }
REEF_DEVICE void cluster_meeting() { barrier(); }
REEF_DEVICE Chunk cluster_load(const void* pointer, u32) { return *(const Chunk*)pointer; }

REEF_DEVICE float exp2_fast(float x) { return __builtin_exp2f(x); }
REEF_DEVICE float log2_fast(float x) { return __builtin_log2f(x); }
REEF_DEVICE float reciprocal(float x) { return 1.0f / x; }
REEF_DEVICE float root(float x) { return __builtin_sqrtf(x); }

// At least two waves a SIMD: at most 128 vector registers.
#define REEF_KERNEL(threads) \
    extern "C" __attribute__((global)) __attribute__((amdgpu_flat_work_group_size(threads, threads), amdgpu_waves_per_eu(2)))
#define REEF_PLAIN(name, threads, resident, cluster, body) \
    REEF_KERNEL(threads) void name(const Args args) { body<false>(args, Place{}); }
#define REEF_PREEMPTIBLE(name, threads, resident, cluster, body) \
    REEF_KERNEL(threads) void name##_p(const Args args, const Place place) { body<true>(args, place); }
#define REEF_CLUSTER(blocks)
#define REEF_RESIDENT(blocks)
#define REEF_WINDOW(name, ...) extern "C" __attribute__((global)) void name(const Args args, const Place place) __VA_ARGS__
