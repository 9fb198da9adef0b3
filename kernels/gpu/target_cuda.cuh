// SPDX-License-Identifier: Apache-2.0
// The vocabulary of portable.cuh on NVIDIA GPUs, as inline PTX.
#pragma once

#define REEF_DEVICE static __device__ __forceinline__
#define REEF_MEMBER __device__ __forceinline__
#define REEF_TENSOR_CORES 1
#define REEF_ASYNC_COPIES 1
#define REEF_MOST_STEPS 64

REEF_DEVICE int thread_index() { return threadIdx.x; }
REEF_DEVICE int block_index() { return blockIdx.x; }
REEF_DEVICE void barrier() { __syncthreads(); }

extern __shared__ __align__(128) u8 reef_shared_memory[];
REEF_DEVICE u8* shared_memory() { return reef_shared_memory; }
REEF_DEVICE u32 shared_address(const void* pointer) { return (u32)__cvta_generic_to_shared(pointer); }

REEF_DEVICE float bits_to_float(u32 bits) { return __uint_as_float(bits); }
REEF_DEVICE u32 float_to_bits(float value) { return __float_as_uint(value); }
REEF_DEVICE float to_float(Half value) {
    float out;
    asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(value.bits));
    return out;
}
REEF_DEVICE Half to_half(float value) {
    Half out;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out.bits) : "f"(value));
    return out;
}
REEF_DEVICE float fused_multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }
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
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(valid ? 16 : 0)
                 : "memory");
}
REEF_DEVICE void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int Pending> REEF_DEVICE void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

REEF_DEVICE void settle(int& value) { asm volatile("" : "+r"(value)); }
template <class T> REEF_DEVICE void settle(const T*& pointer) { asm volatile("" : "+l"(pointer)); }

REEF_DEVICE u32 load_relaxed(const u32* word) {
    u32 value;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(word) : "memory");
    return value;
}
REEF_DEVICE u32 load_relaxed_if(const u32* word, bool wanted, u32 otherwise) {
    asm volatile("{\n\t.reg .pred wanted;\n\tsetp.ne.u32 wanted, %2, 0;\n\t@wanted ld.relaxed.gpu.global.u32 %0, [%1];\n\t}"
                 : "+r"(otherwise)
                 : "l"(word), "r"((u32)wanted)
                 : "memory");
    return otherwise;
}
REEF_DEVICE u32 warp_or(u32 value) {
    u32 all;
    asm volatile("redux.sync.or.b32 %0, %1, 0xffffffff;" : "=r"(all) : "r"(value));
    return all;
}
REEF_DEVICE void keep_order() { asm volatile("bar.warp.sync 0xffffffff;" ::: "memory"); }
REEF_DEVICE void store_relaxed(u32* word, u32 value) {
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}
REEF_DEVICE void lower(u32* word, u32 value) {
    asm volatile("red.relaxed.gpu.global.min.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}
REEF_DEVICE Chunk load_words(const u32* words) {
    Chunk chunk;
    asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(chunk.word[0]), "=r"(chunk.word[1]), "=r"(chunk.word[2]), "=r"(chunk.word[3])
                 : "l"(words)
                 : "memory");
    return chunk;
}
REEF_DEVICE void publish(u32* word, u32 value) {
    asm volatile("st.relaxed.sys.global.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}
REEF_DEVICE void publish_release(u32* word, u32 value) {
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}

REEF_DEVICE void dependency_launch() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// Addresses are computed while the kernel before still runs. ptxas would move that arithmetic behind the wait, 100 to 250
// instructions of a convolution, but nothing over a reading of the clock; the exit, which no grid takes, keeps the reading.
REEF_DEVICE void dependency_wait() {
#if __CUDA_ARCH__ >= 900
    asm volatile("{\n\t"
                 ".reg .pred never;\n\t"
                 ".reg .u32 now, layers;\n\t"
                 "mov.u32 now, %clock;\n\t"
                 "mov.u32 layers, %nctaid.z;\n\t"
                 "setp.eq.u32 never, layers, 0;\n\t"
                 "setp.eq.and.u32 never, now, 0, never;\n\t"
                 "@never exit;\n\t"
                 "}\n\t"
                 "griddepcontrol.wait;" ::: "memory");
#endif
}

REEF_DEVICE u32 cluster_rank() {
    u32 rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
// Shared memory alone is what blocks of a cluster tell each other. A release of all memory (the default) waits until
// everything that the block has under way is seen by the whole device.
REEF_DEVICE void cluster_barrier() {
#if __CUDACC_VER_MAJOR__ * 100 + __CUDACC_VER_MINOR__ >= 1208
    asm volatile("fence.release.sync_restrict::shared::cta.cluster;\n\tbarrier.cluster.arrive.relaxed.aligned;\n\t"
                 "barrier.cluster.wait.acquire.aligned;" ::: "memory");
#else
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
REEF_DEVICE void cluster_meeting() {
    asm volatile("barrier.cluster.arrive.relaxed.aligned;\n\tbarrier.cluster.wait.aligned;" ::: "memory");
}
// Sixteen bytes of another block's shared memory; `pointer` is the address of the same place in this block's.
REEF_DEVICE Chunk cluster_load(const void* pointer, u32 rank) {
    u32 address;
    Chunk chunk;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(pointer)), "r"(rank));
    asm volatile("ld.shared::cluster.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(chunk.word[0]), "=r"(chunk.word[1]), "=r"(chunk.word[2]), "=r"(chunk.word[3])
                 : "r"(address)
                 : "memory");
    return chunk;
}

REEF_DEVICE float exp2_fast(float x) {
    float out;
    asm("ex2.approx.f32 %0, %1;" : "=f"(out) : "f"(x));
    return out;
}
REEF_DEVICE float log2_fast(float x) {
    float out;
    asm("lg2.approx.f32 %0, %1;" : "=f"(out) : "f"(x));
    return out;
}
REEF_DEVICE float reciprocal(float x) { return __frcp_rn(x); }
REEF_DEVICE float root(float x) { return __fsqrt_rn(x); }

// Four 8x8 matrices of halves: lane l names row l % 8 of matrix l / 8 and receives two neighbours of row l / 4 of each.
REEF_DEVICE void load_matrices(u32 (&out)[4], const Chunk* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}
// The same of the transposed matrices: two neighbours of column l / 4.
REEF_DEVICE void load_matrices_transposed(u32 (&out)[4], const Chunk* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}
// The value of lane l ^ mask of the warp.
REEF_DEVICE float lane_exchange(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
// 16x8 += 16x16 * 16x8, halves in, floats out.
REEF_DEVICE void multiply_matrices(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#define REEF_PLAIN(name, threads, resident, cluster, body)                                                       \
    extern "C" __global__ void __launch_bounds__(threads) cluster name(const Args args) {                        \
        body<false>(args, Place{});                                                                              \
    }
#define REEF_PREEMPTIBLE(name, threads, resident, cluster, body)                                                 \
    extern "C" __global__ void __launch_bounds__(threads resident) cluster name##_p(const Args args,             \
                                                                                    const Place place) {         \
        body<true>(args, place);                                                                                 \
    }
// Without a number of blocks the compiler is thrifty with registers; with 1 it takes up to 255.
#define REEF_RESIDENT(blocks) , blocks
#define REEF_CLUSTER(blocks) __cluster_dims__(blocks, 1, 1)
#define REEF_WINDOW(name, ...) \
    extern "C" __global__ void __launch_bounds__(1) name(const Args args, const Place place) __VA_ARGS__
