// SPDX-License-Identifier: Apache-2.0
// Runs a grid of GPU threads on one CPU thread: clusters one after the other, each thread of a cluster a fiber, switched
// only at barriers. Kernels compile against this header alone; fibers.cpp is the runtime they find when they are loaded.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace reef_host {

// A meeting of a fixed set of fibers. A fiber that leaves for good no longer counts.
struct Meeting {
    int members, arrived;
    uint64_t round;
};

struct Warp {
    Meeting everyone;
    const void* row[32];
    uint32_t a[32][4], b[32][2];
};

struct Block;

struct Cluster {
    Block* blocks;
    Meeting everyone;
};

struct Block {
    int index, rank;
    Cluster* cluster;
    unsigned char* memory;
    Meeting everyone;
    Warp* warps;
};

struct Thread {
    int index;
    Block* block;
};

extern thread_local Thread* current;

void wait(Meeting& meeting);
void queue_copy(void* to, const void* from);  // from null: zeros
void commit_copies();
void land_copies(uint64_t pending);  // all but the last `pending` groups
uint32_t load_word(const uint32_t* word);
float half_to_float(uint16_t half);
uint16_t float_to_half(float value);

inline Warp& warp() { return current->block->warps[current->index / 32]; }

}  // namespace reef_host
