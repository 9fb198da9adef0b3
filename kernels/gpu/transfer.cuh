// SPDX-License-Identifier: Apache-2.0
// Small outputs to the client's memory: a kernel like all others, so that it can be preempted, counts as progress, and has no
// argument that changes. args: the address (a 64-bit word that the host writes before a launch), the device's buffer.
//
// Inputs and large outputs go by the copy engine: threads that load from the host's memory got 2 GB/s on an H200, the
// engine 33.
#pragma once

template <class K> struct Transfer {
    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        static_assert(K::BLOCKS == (K::CHUNKS + K::THREADS * K::EACH - 1) / (K::THREADS * K::EACH), "the launch matches");
        Gate<Preemptible> gate(place, block_index());
        gate.enter();
        Chunk* to = (Chunk*)*(const volatile u64*)args.p[0];
        const Chunk* from = (const Chunk*)args.p[1];
        const int first = block_index() * K::EACH * K::THREADS + thread_index();
        Chunk chunk[K::EACH];
#pragma unroll
        for (int i = 0; i < K::EACH; i++) chunk[i] = load_chunk(from + first + i * K::THREADS, first + i * K::THREADS < K::CHUNKS);
        if (gate.stop()) return;
#pragma unroll
        for (int i = 0; i < K::EACH; i++)
            if (first + i * K::THREADS < K::CHUNKS) to[first + i * K::THREADS] = chunk[i];
    }
};
