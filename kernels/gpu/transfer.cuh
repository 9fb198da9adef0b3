// SPDX-License-Identifier: Apache-2.0
// Inputs from the client's memory to the device, and outputs back: kernels like all others, so that a copy can be
// preempted, counts as progress, and has no argument that changes. args: the addresses {inputs, outputs} of this request
// (two 64-bit words that the host writes before a launch), the device's buffer.
//
// What the client changes meanwhile may or may not show, but is read only once: kernels see the buffer.
#pragma once

template <class K> struct Transfer {
    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        static_assert(K::BLOCKS == (K::CHUNKS + K::THREADS * K::EACH - 1) / (K::THREADS * K::EACH), "the launch matches");
        Gate<Preemptible> gate(place, (u32*)shared_memory(), block_index());
        dependency_launch();
        dependency_wait();
        gate.begin();
        if (gate.check()) return;
        Chunk* host = (Chunk*)((const volatile u64*)args.p[0])[K::INPUT ? 0 : 1];
        Chunk* buffer = (Chunk*)args.p[1];
        const Chunk* from = K::INPUT ? host : buffer;
        Chunk* to = K::INPUT ? buffer : host;
        Chunk chunk[K::EACH];
        const int first = block_index() * K::EACH * K::THREADS + thread_index();
#pragma unroll
        for (int i = 0; i < K::EACH; i++) {
            int item = first + i * K::THREADS;
            chunk[i] = load_chunk(from + item, item < K::CHUNKS);
        }
#pragma unroll
        for (int i = 0; i < K::EACH; i++) {
            int item = first + i * K::THREADS;
            if (item < K::CHUNKS) to[item] = chunk[i];
        }
        gate.finish();
    }
};
