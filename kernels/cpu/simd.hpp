// SPDX-License-Identifier: Apache-2.0
// The vector of this instruction set: sixteen, eight or four floats, and the few operations that operators are made of.
//
// Arithmetic, comparison and `mask ? a : b` are the compiler's own on vector types. Everything is forced inline in an
// anonymous namespace, so that no object file leaves a copy that another instruction set could be linked to.
// min and max return the second operand where either is not a number: put the value there to let it through.
#pragma once
#include <cstdint>

#if REEF_ISA_avx2 || REEF_ISA_avx512
#include <immintrin.h>
#endif

#define REEF_INLINE inline __attribute__((always_inline))

namespace reef::cpu::REEF_ISA {
namespace {

#if REEF_ISA_avx512
constexpr int kLanes = 16;
// gcc 12 calls the unmasked forms of some intrinsics uninitialised (its bug 105593); a full mask costs nothing.
constexpr __mmask16 kAll = 0xFFFF;
#elif REEF_ISA_avx2
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

using Vec = float __attribute__((vector_size(4 * kLanes)));
using IVec = int32_t __attribute__((vector_size(4 * kLanes)));
using UVec = uint32_t __attribute__((vector_size(4 * kLanes)));
// In memory a vector has the alignment of a float only.
using VecInMemory = float __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
using IVecInMemory = int32_t __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

// Not `Vec{} + value`: the compiler may not leave the addition out, for -0.
REEF_INLINE Vec splat(float value) {
#if REEF_ISA_avx512
    return Vec(_mm512_set1_ps(value));
#elif REEF_ISA_avx2
    return Vec(_mm256_set1_ps(value));
#else
    return Vec{value, value, value, value};
#endif
}

REEF_INLINE IVec splat_int(int32_t value) { return IVec{} + value; }

REEF_INLINE Vec load(const float* from) { return *reinterpret_cast<const VecInMemory*>(from); }

REEF_INLINE void store(float* to, Vec value) { *reinterpret_cast<VecInMemory*>(to) = value; }

// The value stays in a register from here on: a compiler may otherwise load it again at each use.
REEF_INLINE void keep(Vec& value) {
#if REEF_ISA_avx512
    asm("" : "+v"(value));
#elif REEF_ISA_avx2
    asm("" : "+x"(value));
#else
    static_cast<void>(value);
#endif
}

REEF_INLINE IVec load_int(const int32_t* from) { return *reinterpret_cast<const IVecInMemory*>(from); }

REEF_INLINE void store_int(int32_t* to, IVec value) { *reinterpret_cast<IVecInMemory*>(to) = value; }

// The first `count` lanes, 0 <= count <= kLanes; the others read as zero and are not touched in memory.
REEF_INLINE Vec load_first(const float* from, int count) {
#if REEF_ISA_avx512
    return Vec(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1U << count) - 1U), from));
#elif REEF_ISA_avx2
    const IVec lane = {0, 1, 2, 3, 4, 5, 6, 7};
    return Vec(_mm256_maskload_ps(from, __m256i(lane < splat_int(count))));
#else
    Vec value{};
    for (int i = 0; i < kLanes; ++i) {
        value[i] = i < count ? from[i] : 0.0F;
    }
    return value;
#endif
}

REEF_INLINE void store_first(float* to, Vec value, int count) {
#if REEF_ISA_avx512
    _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1U << count) - 1U), __m512(value));
#elif REEF_ISA_avx2
    const IVec lane = {0, 1, 2, 3, 4, 5, 6, 7};
    _mm256_maskstore_ps(to, __m256i(lane < splat_int(count)), __m256(value));
#else
    for (int i = 0; i < kLanes; ++i) {
        if (i < count) {
            to[i] = value[i];
        }
    }
#endif
}

// a * b + c, rounded once where the instruction set can.
REEF_INLINE Vec fma(Vec a, Vec b, Vec c) {
#if REEF_ISA_avx512
    return Vec(_mm512_fmadd_ps(__m512(a), __m512(b), __m512(c)));
#elif REEF_ISA_avx2
    return Vec(_mm256_fmadd_ps(__m256(a), __m256(b), __m256(c)));
#else
    return a * b + c;
#endif
}

REEF_INLINE Vec min(Vec a, Vec b) {
#if REEF_ISA_avx512
    return Vec(_mm512_mask_min_ps(__m512(a), kAll, __m512(a), __m512(b)));
#elif REEF_ISA_avx2
    return Vec(_mm256_min_ps(__m256(a), __m256(b)));
#else
    return a < b ? a : b;
#endif
}

REEF_INLINE Vec max(Vec a, Vec b) {
#if REEF_ISA_avx512
    return Vec(_mm512_mask_max_ps(__m512(a), kAll, __m512(a), __m512(b)));
#elif REEF_ISA_avx2
    return Vec(_mm256_max_ps(__m256(a), __m256(b)));
#else
    return a > b ? a : b;
#endif
}

REEF_INLINE Vec square_root(Vec x) {
#if REEF_ISA_avx512
    return Vec(_mm512_mask_sqrt_ps(__m512(x), kAll, __m512(x)));
#elif REEF_ISA_avx2
    return Vec(_mm256_sqrt_ps(__m256(x)));
#else
    Vec y{};
    for (int i = 0; i < kLanes; ++i) {
        y[i] = __builtin_sqrtf(x[i]);
    }
    return y;
#endif
}

REEF_INLINE Vec absolute(Vec x) { return Vec(IVec(x) & splat_int(0x7FFFFFFF)); }

// The magnitude of one with the sign of the other.
REEF_INLINE Vec with_sign(Vec magnitude, Vec sign) {
    return Vec((IVec(magnitude) & splat_int(0x7FFFFFFF)) | (IVec(sign) & splat_int(INT32_MIN)));
}

// To the nearest integer, ties to even. Beyond 2^23 every float is an integer already.
REEF_INLINE Vec round_even(Vec x) {
    const Vec magic = with_sign(splat(8388608.0F), x);
    return absolute(x) < splat(8388608.0F) ? with_sign((x + magic) - magic, x) : x;
}

REEF_INLINE Vec floor(Vec x) {
    const Vec r = round_even(x);
    return r > x ? r - 1.0F : r;
}

REEF_INLINE Vec ceil(Vec x) {
    const Vec r = round_even(x);
    return with_sign(r < x ? r + 1.0F : r, x);
}

REEF_INLINE IVec to_int(Vec x) { return __builtin_convertvector(x, IVec); }

REEF_INLINE Vec to_float(IVec x) { return __builtin_convertvector(x, Vec); }

// Lanes are added in a fixed order, the same for every caller.
REEF_INLINE float sum(Vec x) {
    float part[kLanes];
    store(part, x);
    for (int width = kLanes / 2; width > 0; width /= 2) {
        for (int i = 0; i < width; ++i) {
            part[i] += part[i + width];
        }
    }
    return part[0];
}

REEF_INLINE float largest(Vec x) {
    float part[kLanes];
    store(part, x);
    for (int width = kLanes / 2; width > 0; width /= 2) {
        for (int i = 0; i < width; ++i) {
            part[i] = part[i] > part[i + width] ? part[i] : part[i + width];
        }
    }
    return part[0];
}

}  // namespace
}  // namespace reef::cpu::REEF_ISA
