// SPDX-License-Identifier: Apache-2.0
// From an element type in a model to a template argument, and 16-bit floats, which are computed with as 32-bit ones.
#pragma once
#include "common.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

template <class T> struct Tag {
    using type = T;
};

template <class T> inline constexpr bool is_float = false;
template <> inline constexpr bool is_float<float> = true;
template <> inline constexpr bool is_float<double> = true;
template <class T> inline constexpr bool is_signed = static_cast<T>(-1) < static_cast<T>(0);

// Calls f(Tag<T>{}) for an arithmetic type. false: there is no arithmetic on this type.
template <class F> bool with_number(DType dtype, const F& f) {
    switch (dtype) {
    case DType::f32:
        return f(Tag<float>{});
    case DType::f64:
        return f(Tag<double>{});
    case DType::i8:
        return f(Tag<int8_t>{});
    case DType::i16:
        return f(Tag<int16_t>{});
    case DType::i32:
        return f(Tag<int32_t>{});
    case DType::i64:
        return f(Tag<int64_t>{});
    case DType::u8:
        return f(Tag<uint8_t>{});
    case DType::u16:
        return f(Tag<uint16_t>{});
    case DType::u32:
        return f(Tag<uint32_t>{});
    case DType::u64:
        return f(Tag<uint64_t>{});
    case DType::b:
    case DType::f16:
        break;
    }
    return false;
}

// Moving needs only the size of an element.
template <class F> bool with_size(DType dtype, const F& f) {
    switch (item_size(dtype)) {
    case 1:
        return f(Tag<uint8_t>{});
    case 2:
        return f(Tag<uint16_t>{});
    case 4:
        return f(Tag<uint32_t>{});
    default:
        return f(Tag<uint64_t>{});
    }
}

inline float half_to_float(uint16_t half) {
    uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16, exponent = half >> 10 & 31, mantissa = half & 1023;
    float value;
    uint32_t bits;
    if (exponent == 0) {
        value = static_cast<float>(mantissa) * 5.9604644775390625e-8f;  // 2^-24
        memcpy(&bits, &value, sizeof bits);
        bits |= sign;
    } else {
        bits = sign | (exponent == 31 ? 255u : exponent + 112) << 23 | mantissa << 13;
    }
    memcpy(&value, &bits, sizeof value);
    return value;
}

// To the nearest, ties to even.
inline uint16_t float_to_half(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
    if (magnitude > 0x7F800000)
        return static_cast<uint16_t>(sign | 0x7E00 | (magnitude >> 13 & 0x3FF));
    if (magnitude >= 0x477FF000)  // 65520 and more round to infinity
        return static_cast<uint16_t>(sign | 0x7C00);
    if (magnitude < 0x38800000) {  // below 2^-14: the float addition rounds to multiples of 2^-24
        float small;
        memcpy(&small, &magnitude, sizeof small);
        small += 0.5f;
        memcpy(&bits, &small, sizeof bits);
        return static_cast<uint16_t>(sign | (bits - 0x3F000000));
    }
    uint32_t odd = magnitude >> 13 & 1;
    return static_cast<uint16_t>(sign | ((magnitude + 0xFFF + odd - 0x38000000) >> 13));
}

}  // namespace
}  // namespace reef::cpu::REEF_ISA
