// SPDX-License-Identifier: Apache-2.0
// The types that tensors have, and a number in another one: what copies, casts and the general element-wise kernels need.
#pragma once

typedef signed char i8;
typedef short i16;

struct Bool {
    u8 value;
};

template <class A, class B> struct Same {
    static constexpr bool value = false;
};
template <class A> struct Same<A, A> {
    static constexpr bool value = true;
};
template <class T> struct Number {
    static constexpr bool real = false, has_sign = (T)(-1) < (T)0;
};
template <> struct Number<float> {
    static constexpr bool real = true, has_sign = true;
};
template <> struct Number<double> {
    static constexpr bool real = true, has_sign = true;
};

// A float becomes the integer towards zero; one that does not fit the nearest that does, and what is not a number 0.
// Anything but 0 is true.
template <class To, class From> REEF_DEVICE To convert(From value) {
    if constexpr (Same<To, From>::value) {
        return value;
    } else if constexpr (Same<From, Half>::value) {
        return convert<To>(to_float(value));
    } else if constexpr (Same<From, Bool>::value) {
        return convert<To>((u8)(value.value != 0));
    } else if constexpr (Same<To, Half>::value) {
        return to_half((float)value);
    } else if constexpr (Same<To, Bool>::value) {
        return Bool{(u8)(value != 0)};
    } else if constexpr (Number<From>::real && !Number<To>::real) {
        constexpr int bits = 8 * (int)sizeof(To) - (Number<To>::has_sign ? 1 : 0);
        constexpr double limit = (double)((u64)1 << (bits - 1)) * 2;
        if (value != value) return 0;
        if ((double)value >= limit) return (To)(~(u64)0 >> (64 - bits));
        if ((double)value < (Number<To>::has_sign ? -limit : 0.0))
            return Number<To>::has_sign ? (To)((u64)1 << bits % 64) : (To)0;
        return (To)value;
    } else {
        return (To)value;
    }
}

// WIDE neighbouring elements as numbers of type C; one for all where the operand is not Dense.
template <bool Dense, class C, class T, int Wide> REEF_DEVICE void read_elements(const T* from, C (&value)[Wide]) {
    if constexpr (!Dense) {
        C one = convert<C>(*from);
#pragma unroll
        for (int e = 0; e < Wide; e++) value[e] = one;
    } else if constexpr (Wide > 1) {
        constexpr int chunk = Traits<T>::chunk;
        static_assert(Wide % chunk == 0, "whole chunks");
#pragma unroll
        for (int e = 0; e < Wide; e += chunk) {
            float part[chunk];
            unpack(load_chunk(from + e, true), part, T{});
#pragma unroll
            for (int i = 0; i < chunk; i++) value[e + i] = part[i];
        }
    } else {
        value[0] = convert<C>(*from);
    }
}

// WIDE neighbouring elements as they lie in memory, zeros where not valid: a load that is not looked at yet.
template <class T, int Wide> struct Loaded {
    static constexpr int chunk = Traits<T>::chunk;
    static_assert(Wide % chunk == 0, "whole chunks");
    Chunk held[Wide / chunk];

    REEF_MEMBER void from(const T* place, bool valid) {
#pragma unroll
        for (int c = 0; c < Wide / chunk; c++) held[c] = load_chunk(place + c * chunk, valid);
    }
    REEF_MEMBER void to(float (&value)[Wide]) const {
#pragma unroll
        for (int c = 0; c < Wide / chunk; c++) {
            float part[chunk];
            unpack(held[c], part, T{});
#pragma unroll
            for (int i = 0; i < chunk; i++) value[c * chunk + i] = part[i];
        }
    }
};
template <class T> struct Loaded<T, 1> {
    float held;

    REEF_MEMBER void from(const T* place, bool valid) { held = valid ? convert<float>(*place) : 0.0f; }
    REEF_MEMBER void to(float (&value)[1]) const { value[0] = held; }
};

template <class C, class T, int Wide> REEF_DEVICE void write_elements(const C (&value)[Wide], T* to) {
    if constexpr (Wide > 1) {
        constexpr int chunk = Traits<T>::chunk;
        static_assert(Wide % chunk == 0, "whole chunks");
#pragma unroll
        for (int e = 0; e < Wide; e += chunk) {
            float part[chunk];
#pragma unroll
            for (int i = 0; i < chunk; i++) part[i] = value[e + i];
            *(Chunk*)(to + e) = pack(part, T{});
        }
    } else {
        *to = convert<T>(value[0]);
    }
}
