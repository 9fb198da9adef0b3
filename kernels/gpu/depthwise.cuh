// SPDX-License-Identifier: Apache-2.0
// depthwise_conv2d, feature maps N, H, W, C; each input channel makes MULTIPLIER output channels.
// args: x, w [KH][KW][O], bias, residual, slope, y. Bias and weights are read once for STRIP neighbouring output pixels.
#pragma once

template <bool Wide> struct ColumnOf {
    using Type = float;
};
template <> struct ColumnOf<true> {
    using Type = Chunk;
};

template <class K> struct Depthwise {
    using T = typename K::T;
    static constexpr int wide = K::WIDE, groups_across = K::O / wide, strips = (K::OW + K::STRIP - 1) / K::STRIP;
    static constexpr int items = K::N * K::OH * strips * groups_across;
    static constexpr int span = (K::STRIP - 1) * K::SW + (K::KW - 1) * K::DW + 1;  // input columns under a strip
    static_assert(K::BLOCKS == (items + K::THREADS - 1) / K::THREADS, "the launch matches the kernel");

    REEF_DEVICE void read(const T* from, float (&value)[wide], bool valid) {
        if constexpr (wide > 1) {
            unpack(load_chunk(from, valid), value, T{});
        } else {
            value[0] = valid ? as_float(*from) : 0.0f;
        }
    }

    // Whether any output of a strip reads column s: with strides and dilations some lie between.
    REEF_DEVICE constexpr bool used(int s) {
        for (int p = 0; p < K::STRIP; p++)
            for (int kw = 0; kw < K::KW; kw++)
                if (p * K::SW + kw * K::DW == s) return true;
        return false;
    }

    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        Gate<Preemptible> gate(place, block_index());
        dependency_launch();
        int item = block_index() * K::THREADS + thread_index();
        bool some = items % K::THREADS == 0 || item < items;
        int channel = item % groups_across * wide, strip = item / groups_across;
        int first = strip % strips * K::STRIP, line = strip / strips;
        int image = line / K::OH, top = line % K::OH * K::SH - K::PT, left = first * K::SW - K::PL;
        int from_channel = channel / K::MULTIPLIER;
        static_assert(wide == 1 || K::MULTIPLIER == 1, "whole chunks need one output for each input channel");

        const T* w = (const T*)args.p[1];
        float bias[wide], sum[K::STRIP][wide];
#pragma unroll
        for (int e = 0; e < wide; e++) bias[e] = K::BIAS && some ? ((const float*)args.p[2])[channel + e] : 0.0f;
#pragma unroll
        for (int p = 0; p < K::STRIP; p++)
#pragma unroll
            for (int e = 0; e < wide; e++) sum[p][e] = bias[e];
        // The first row of weights is under way before the kernel before has ended, all others beside the data.
        Loaded<T, wide> row[K::KW];
#pragma unroll
        for (int kw = 0; kw < K::KW; kw++) row[kw].from(w + kw * K::O + channel, some);
        dependency_wait();
        gate.begin();
        if (!fits_at_once<K> && gate.stop()) return;
        const T* x = (const T*)args.p[0];
        typename ColumnOf<(wide > 1)>::Type columns[span];  // of a window's row, as they are loaded
        auto load = [&](int kh) {
            int row = top + kh * K::DH;
            bool inside = some && (unsigned)row < K::H;
            const T* line_start = x + ((i64)(image * K::H + row) * K::W + left) * K::X_PITCH + from_channel;
#pragma unroll
            for (int s = 0; s < span; s++)
                if (used(s)) {
                    const T* from = line_start + s * K::X_PITCH;
                    bool valid = inside && (unsigned)(left + s) < K::W;
                    if constexpr (wide > 1)
                        columns[s] = load_chunk(from, valid);
                    else
                        columns[s] = valid ? as_float(*from) : 0.0f;
                }
        };
        load(0);
        if (fits_at_once<K> && gate.stop()) return;
#pragma unroll(K::KH <= 3 ? K::KH : 1)
        for (int kh = 0; kh < K::KH; kh++) {
            float weight[K::KW][wide];
#pragma unroll
            for (int kw = 0; kw < K::KW; kw++) {
                if (kh > 0) row[kw].from(w + (kh * K::KW + kw) * K::O + channel, some);
                row[kw].to(weight[kw]);
            }
            if (kh > 0) load(kh);
#pragma unroll
            for (int s = 0; s < span; s++) {
                if (!used(s)) continue;
                float value[wide];
                if constexpr (wide > 1)
                    unpack(columns[s], value, T{});
                else
                    value[0] = columns[s];
#pragma unroll
                for (int p = 0; p < K::STRIP; p++)
#pragma unroll
                    for (int kw = 0; kw < K::KW; kw++)
                        if (p * K::SW + kw * K::DW == s)
#pragma unroll
                            for (int e = 0; e < wide; e++)
                                sum[p][e] = fused_multiply_add(value[e], weight[kw][e], sum[p][e]);
            }
        }
#pragma unroll
        for (int p = 0; p < K::STRIP; p++) {
            if (!some || (K::OW % K::STRIP != 0 && first + p >= K::OW)) continue;
            i64 pixel = (i64)line * K::OW + first + p;
            float extra[wide] = {}, result[wide];
            if constexpr (K::RESIDUAL)
                read((const T*)args.p[3] + pixel * K::R_PITCH + channel, extra, channel < K::R_CHANNELS);
#pragma unroll
            for (int e = 0; e < wide; e++) {
                float value = sum[p][e] + (K::ACTIVATION_FIRST ? 0.0f : extra[e]);
                if constexpr (K::PRELU) value = value >= 0 ? value : value * ((const float*)args.p[4])[channel + e];
                value = activate<K::ACTIVATION>(value, K::ALPHA, K::BETA);
                result[e] = value + (K::ACTIVATION_FIRST ? extra[e] : 0.0f);
            }
            T* to = (T*)args.p[5] + pixel * K::Y_PITCH + channel;
            if constexpr (wide > 1)
                *(Chunk*)to = pack(result, T{});
            else
                from_float(result[0], *to);
        }
    }
};
