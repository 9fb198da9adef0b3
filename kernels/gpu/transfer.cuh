// SPDX-License-Identifier: Apache-2.0
// Small outputs to the client's memory: a kernel like all others, so that it can be preempted, counts as progress, and has no
// argument that changes. args: the address (a 64-bit word that the host writes before a launch), the device's buffer.
//
// Inputs and large outputs go by the copy engine: threads that load from the host's memory got 2 GB/s on an H200, the
// engine 33. The word with the address lies there too, and loads of it take a microsecond each, one after the other: one
// thread of a block loads it, while the kernel before still runs. (By every warp, 393 KB took 200 us.)
#pragma once

template <class K> struct Transfer {
    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        static_assert(K::BLOCKS == (K::CHUNKS + K::THREADS * K::EACH - 1) / (K::THREADS * K::EACH), "the launch matches");
        Gate<Preemptible> gate(place, block_index());
        u64* address = (u64*)(shared_memory() + 128);
        const u64 given = thread_index() == 0 ? *(const volatile u64*)args.p[0] : 0;
        gate.enter();
        const Chunk* from = (const Chunk*)args.p[1];
        const int first = block_index() * K::EACH * K::THREADS + thread_index();
        Chunk chunk[K::EACH];
#pragma unroll
        for (int i = 0; i < K::EACH; i++) chunk[i] = load_chunk(from + first + i * K::THREADS, first + i * K::THREADS < K::CHUNKS);
        if (thread_index() == 0) *address = given;
        if (gate.check()) return;
        Chunk* to = (Chunk*)*address;
#pragma unroll
        for (int i = 0; i < K::EACH; i++)
            if (first + i * K::THREADS < K::CHUNKS) to[first + i * K::THREADS] = chunk[i];
    }
};
