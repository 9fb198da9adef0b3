// SPDX-License-Identifier: Apache-2.0
// conv2d and matrix products as one kernel: an implicit GEMM over output pixels x output channels x (taps, channels).
//
// args: x, w, bias, residual, slope, y. Weights are packed [group][O][KH][KW][C], padded to whole chunks; the bias is
// float. A block computes BM x BN outputs. Where that gives too few blocks for the device, k is cut as well:
//   CLUSTER   blocks of one cluster take a share each and add up through each other's shared memory (NVIDIA sm_90);
//             the cluster is then the unit of restoration and is left or finished as one
//   PARTS     blocks write disjoint partial sums to a workspace, and conv_reduce adds them (elsewhere)
// Sums are always added in the same order: k-tiles ascending in a slice, then slices, then blocks of the cluster or parts.
#pragma once

template <class K> struct ConvLayout {
    using G = Geometry<K>;
    static constexpr int tile_chunks = (K::BM + K::BN) * G::columns;
    static constexpr int pitch = K::BN + 8;
    static constexpr int header = 128;  // the gate's words, and the word by which a cluster agrees to leave
    static constexpr int pipeline = K::STAGES * tile_chunks * 16;
    static constexpr int sums = K::SLICES * K::BM * pitch * 4;
    static constexpr int bytes = header + (pipeline > sums ? pipeline : sums);
    // Blocks that an H200 holds, at most: 132 compute units of 227 KB, and of 65,536 registers, of which a thread has more
    // than its sums take.
    static constexpr int sums_each = K::BM * K::BN * K::SLICES / K::THREADS;
    static constexpr int by_registers = 65536 / (K::THREADS * (sums_each + 32)), by_memory = (227 << 10) / (bytes + 1024);
    static constexpr int at_once = 132 * (by_registers < by_memory ? by_registers : by_memory);
    static constexpr int units = K::GROUPS * G::row_tiles * G::column_tiles * K::PARTS;  // of restoration
    static_assert(bytes == K::SHARED && units * K::CLUSTER == K::BLOCKS, "the launch matches the kernel");
};

// Adds bias and residual, applies the activation, stores: elements [column, column + n) of one output pixel.
template <class K> struct ConvOutput {
    using Out = typename K::Out;
    static constexpr int wide = K::Y_WIDE ? Traits<Out>::chunk : 1;
    const Args& args;

    REEF_MEMBER Chunk residual(int pixel, int channel) const {
        if constexpr (K::RESIDUAL && K::Y_WIDE)
            return load_chunk((const Out*)args.p[3] + (i64)pixel * K::R_PITCH + channel, channel < K::R_CHANNELS);
        else
            return Chunk{};
    }

    struct Bias {
        float of[wide];
    };
    REEF_MEMBER Bias bias(int channel, bool wanted) const {
        Bias bias{};
        if constexpr (K::BIAS && wide > 1) {
#pragma unroll
            for (int e = 0; e < wide; e += 4) {
                Chunk four = load_chunk((const float*)args.p[2] + channel + e, wanted);
#pragma unroll
                for (int f = 0; f < 4; f++) bias.of[e + f] = bits_to_float(four.word[f]);
            }
        } else if constexpr (K::BIAS) {
            if (wanted) bias.of[0] = ((const float*)args.p[2])[channel];
        }
        return bias;
    }

    REEF_MEMBER float finish(float value, float bias, float extra, int channel) const {
        if constexpr (K::BIAS) value += bias;
        if constexpr (K::RESIDUAL && !K::ACTIVATION_FIRST) value += extra;
        if constexpr (K::PRELU) value = value >= 0 ? value : value * ((const float*)args.p[4])[channel];
        value = activate<K::ACTIVATION>(value, K::ALPHA, K::BETA);
        if constexpr (K::RESIDUAL && K::ACTIVATION_FIRST) value += extra;
        return value;
    }

    REEF_MEMBER void store(const float* value, const Bias& bias, const Chunk& extra_chunk, int pixel, int channel) const {
        Out* y = (Out*)args.p[5];
        if constexpr (K::Y_WIDE) {
            float extra[wide], result[wide];
            unpack(extra_chunk, extra, Out{});
#pragma unroll
            for (int e = 0; e < wide; e++) result[e] = finish(value[e], bias.of[e], extra[e], channel + e);
            *(Chunk*)(y + (i64)pixel * K::Y_PITCH + channel) = pack(result, Out{});
        } else {
            float extra = 0;
            if constexpr (K::RESIDUAL)
                if (channel < K::R_CHANNELS)
                    extra = as_float(((const Out*)args.p[3])[(i64)pixel * K::R_PITCH + channel]);
            constexpr int area = K::OH * K::OW;
            i64 at = K::Y_NCHW ? ((i64)(pixel / area) * K::Y_PITCH + channel) * area + pixel % area
                               : (i64)pixel * K::Y_PITCH + channel;
            from_float(finish(value[0], bias.of[0], extra, channel), y[at]);
        }
    }
};

template <class K> struct Conv {
    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        using G = Geometry<K>;
        using L = ConvLayout<K>;
        using O = ConvOutput<K>;
        constexpr int ahead = K::STAGES - 1;
        u8* memory = shared_memory();
        Chunk* stages = (Chunk*)(memory + L::header);
        int unit = block_index() / K::CLUSTER, rank = K::CLUSTER > 1 ? (int)cluster_rank() : 0;
        Gate<Preemptible> gate(place, unit);

        int part = unit % K::PARTS, tile = unit / K::PARTS;
        int row_tile = tile % G::row_tiles, column_tile = tile / G::row_tiles % G::column_tiles;
        int group = tile / (G::row_tiles * G::column_tiles);
        constexpr int shares = K::CLUSTER * K::PARTS;
        int share = K::CLUSTER > 1 ? rank : part;
        int first = share * G::tiles / shares, count = (share + 1) * G::tiles / shares - first;
        auto left = [&](int stage) { return stages + stage * L::tile_chunks; };
        auto right = [&](int stage) { return stages + stage * L::tile_chunks + K::BM * G::columns; };

        // Weights do not depend on the kernel before: their first tiles are under way before it has ended. But a grid that
        // the device does not take at once looks at the epoch before it loads anything: once that moved on, all its blocks
        // pass through, one after the other.
        constexpr bool looks_first = Preemptible && K::CLUSTER == 1 && K::BLOCKS > L::at_once;
        constexpr int least = G::tiles / shares;  // of k-tiles in a share
        dependency_launch();
        WeightTile<K> weights(args.p[1], column_tile, group);
        auto load_weights = [&] {
#pragma unroll
            for (int s = 0; s < ahead; s++)
                if (s < least || s < count) {
                    weights.issue(right(s), first + s);
                    weights.land(right(s));
                }
        };
        if constexpr (!looks_first) load_weights();
        constexpr int groups_across = K::BN / O::wide;
        constexpr int items = K::BM * groups_across / K::CLUSTER;
        constexpr int items_each = (items + K::THREADS - 1) / K::THREADS;
        static_assert(K::BM * groups_across % K::CLUSTER == 0, "blocks of a cluster share the outputs");
        O output{args};
        auto item_of = [&](int i) { return rank * items + i * K::THREADS + thread_index(); };
        auto pixel_of = [&](int item) { return row_tile * K::BM + item / groups_across; };
        auto column_of = [&](int item) { return item % groups_across * O::wide; };
        auto wanted = [&](int i, int item) {
            return (items % K::THREADS == 0 || i * K::THREADS + thread_index() < items) &&
                   (G::pixels % K::BM == 0 || pixel_of(item) < G::pixels) &&
                   (K::O % K::BN == 0 || column_tile * K::BN + column_of(item) < K::O);
        };
        // What is added to the sums is loaded while they are computed, where registers allow it: of a large grid, the next
        // kernel's blocks find none then before this one has ended (0.4 us of 2.9 with 784 blocks). A bias is constant.
        constexpr bool early_ends = REEF_ASYNC_COPIES && K::PARTS == 1 && items_each * O::wide <= 16 &&
                                    K::BLOCKS * K::THREADS <= 1 << 16;
        typename O::Bias bias[items_each];
        Chunk extra[items_each] = {};
        auto channel_of = [&](int item) { return group * K::O + column_tile * K::BN + column_of(item); };
        auto load_biases = [&] {
#pragma unroll
            for (int i = 0; i < items_each; i++) bias[i] = output.bias(channel_of(item_of(i)), wanted(i, item_of(i)));
        };
        auto load_residuals = [&] {
            if constexpr (K::RESIDUAL && K::PARTS == 1) {
#pragma unroll
                for (int i = 0; i < items_each; i++) {
                    int item = item_of(i);
                    if (wanted(i, item)) extra[i] = output.residual(pixel_of(item), channel_of(item));
                }
            }
        };
        if constexpr (early_ends) load_biases();
        InputTile<K> input(args.p[0], row_tile, group);
        typename ProductOf<K, K::TENSOR_CORES>::Type product;
        typename InputTile<K>::Places places[ahead];
        if constexpr (InputTile<K>::asynchronous)
#pragma unroll
            for (int s = 0; s < ahead; s++) {
                input.find(first + s, places[s]);
                places[s].settled();
            }
        dependency_wait();
        gate.begin();
        // A share of at most PERIOD k-tiles has no check point but the first: its loop is the plain form's, which a branch in
        // it would keep the compiler from unrolling.
        constexpr bool looks_again = Preemptible && (G::tiles + shares - 1) / shares > K::PERIOD;
        auto leave_at_once = [&] { return looks_again ? gate.check() : gate.stop(); };
        if constexpr (looks_first) {
            if (REEF_RARELY(leave_at_once())) return;
            load_weights();
        }
#pragma unroll
        for (int s = 0; s < ahead; s++) {
            if (s < least || s < count) {
                if constexpr (InputTile<K>::asynchronous)
                    input.issue(left(s), places[s]);
                else
                    input.issue(left(s), first + s);
                input.land(left(s));
            }
            copies_commit();
        }
        if constexpr (early_ends) load_residuals();

        // Else the first check point stands here, before the loop, while the first tiles are on their way.
        bool leaving = false;
        if constexpr (Preemptible && !looks_first) {
            leaving = leave_at_once();
            if (K::CLUSTER == 1 && REEF_RARELY(leaving)) {
                copies_wait<0>();
                return;
            }
        }
        if (!REEF_RARELY(leaving))
            for (int t = 0, stage = 0; t < count; t++) {
                copies_wait<ahead - 1>();
                if (looks_again && t > 0 && t % K::PERIOD == 0) {
                    leaving = gate.check_again();
                    if (REEF_RARELY(leaving)) break;
                } else {
                    barrier();
                }
                int next = stage == 0 ? K::STAGES - 1 : stage - 1;
                bool more = t + ahead < count;
                if (more) {
                    input.issue(left(next), first + t + ahead);
                    weights.issue(right(next), first + t + ahead);
                }
                copies_commit();
                product.add(left(stage), right(stage));
                if (more) {
                    input.land(left(next));
                    weights.land(right(next));
                }
                stage = stage + 1 == K::STAGES ? 0 : stage + 1;
            }
        copies_wait<0>();
        if (looks_again && K::CLUSTER == 1 && REEF_RARELY(leaving)) return;

        // The pipeline's memory now takes the sums. A cluster meets here whether or not a block was told to leave.
        barrier();
        float* sums = (float*)(memory + L::header);
        if (!REEF_RARELY(leaving)) product.spill(sums, L::pitch);
        if constexpr (!early_ends) load_residuals();
        // Blocks of a cluster leave together: what each was told lies beside its sums and is asked for with them, by one
        // lane for each block; not by a block that leaves anyway.
        u32 told = 0;
        if constexpr (K::CLUSTER > 1) {
            if constexpr (Preemptible)
                if (thread_index() == 0) ((u32*)memory)[16] = leaving;
            cluster_barrier();
            if constexpr (Preemptible) {
                if (REEF_RARELY(leaving)) {
                    cluster_barrier();  // the others have read it
                    return;
                }
                if (thread_index() % 32 < K::CLUSTER) told = cluster_load(memory + 64, thread_index() % 32).word[0];
            }
        } else {
            barrier();
        }

        auto sum_up = [&](int item, float (&value)[O::wide]) {
            const float* from = sums + item / groups_across * L::pitch + column_of(item);
#pragma unroll
            for (int r = 0; r < K::CLUSTER; r++)
#pragma unroll
                for (int s = 0; s < K::SLICES; s++) {
                    const float* at = from + s * K::BM * L::pitch;
                    if constexpr (O::wide == 1) {
                        static_assert(K::CLUSTER == 1 || O::wide > 1, "a cluster adds whole chunks");
                        value[0] += at[0];
                    } else {
#pragma unroll
                        for (int e = 0; e < O::wide; e += 4) {
                            Chunk four = K::CLUSTER > 1 ? cluster_load(at + e, r) : *(const Chunk*)(at + e);
#pragma unroll
                            for (int f = 0; f < 4; f++) value[e + f] += bits_to_float(four.word[f]);
                        }
                    }
                }
        };
        auto store = [&](int i, int item, const float (&value)[O::wide]) {
            int pixel = pixel_of(item), channel = channel_of(item);
            if constexpr (K::PARTS > 1) {
                float* to = (float*)args.p[5] + ((i64)part * G::pixels + pixel) * (K::GROUPS * K::O) + channel;
#pragma unroll
                for (int e = 0; e < O::wide; e++) to[e] = value[e];
            } else {
                if constexpr (!early_ends) bias[i] = output.bias(channel, true);
                output.store(value, bias[i], extra[i], pixel, channel);
            }
        };
        if constexpr (K::CLUSTER == 1) {
#pragma unroll
            for (int i = 0; i < items_each; i++) {
                if (!wanted(i, item_of(i))) continue;
                float value[O::wide] = {};
                sum_up(item_of(i), value);
                store(i, item_of(i), value);
            }
        } else {
            float value[items_each][O::wide] = {};
#pragma unroll
            for (int i = 0; i < items_each; i++)
                if (wanted(i, item_of(i))) sum_up(item_of(i), value[i]);
            if (Preemptible && REEF_RARELY(warp_or(told) != 0)) {
                // Nobody's shared memory may go while another still reads it, and no barrier waits for loads that are under
                // way: a load from a block that has gone is a fault. So what was asked for is looked at.
                u32 all = 0;
#pragma unroll
                for (int i = 0; i < items_each; i++)
#pragma unroll
                    for (int e = 0; e < O::wide; e++) all |= float_to_bits(value[i][e]);
                if (all == ~0u) ((volatile u32*)memory)[17] = all;
                cluster_barrier();
                return;
            }
#pragma unroll
            for (int i = 0; i < items_each; i++)
                if (wanted(i, item_of(i))) store(i, item_of(i), value[i]);
            cluster_meeting();  // nor now; what was read has been used
        }
    }
};

// Adds the partial sums of a conv with PARTS > 1, in order, and finishes the outputs. args: parts, -, bias, residual, slope, y.
template <class K> struct ConvReduce {
    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        using O = ConvOutput<K>;
        constexpr int channels = K::GROUPS * K::O, pixels = K::N * K::OH * K::OW, groups_across = channels / O::wide;
        constexpr int items = pixels * groups_across;
        static_assert(K::BLOCKS == (items + K::THREADS - 1) / K::THREADS, "the launch matches the kernel");
        Gate<Preemptible> gate(place, block_index());
        gate.enter();
        if (!fits_at_once<K> && gate.stop()) return;
        int item = block_index() * K::THREADS + thread_index();
        int pixel = item / groups_across, channel = item % groups_across * O::wide;
        O output{args};
        Chunk extra = {};
        float value[O::wide] = {};
        if (item < items) {
            extra = output.residual(pixel, channel);
#pragma unroll
            for (int part = 0; part < K::PARTS; part++) {
                const float* from = (const float*)args.p[0] + ((i64)part * pixels + pixel) * channels + channel;
#pragma unroll
                for (int e = 0; e < O::wide; e++) value[e] += from[e];
            }
        }
        if (fits_at_once<K> && gate.stop()) return;
        if (item < items) output.store(value, output.bias(channel, true), extra, pixel, channel);
    }
};
