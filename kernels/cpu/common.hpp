// SPDX-License-Identifier: Apache-2.0
// What most operator files share: the two entry points from one body, cutting work into blocks, checking arguments.
#pragma once
#include <string.h>

#include "kernel.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

// Body::block<Check>(kernel, args, check) does one block and returns false when it was abandoned.
template <class Body> void run_plain(const Kernel& kernel, const BlockArgs& args) {
    Body::block(kernel, args, NoCheckpoint{});
}

template <class Body> bool run_checked(const Kernel& kernel, const BlockArgs& args, const Checkpoint& check) {
    return Body::block(kernel, args, check);
}

// Fills in the kernel. false: spec.fail() was called.
template <class Body> bool finish(Spec& spec, Kernel& kernel, const void* params, size_t blocks, size_t scratch = 0) {
    if (blocks < 1 || blocks > kMaxBlocks)
        return spec.fail("needs %zu blocks", blocks);
    if (scratch > kMaxScratch)
        return spec.fail("needs %zu bytes of scratch", scratch);
    kernel = {static_cast<uint32_t>(blocks), scratch, params, run_plain<Body>, run_checked<Body>};
    return true;
}

inline size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }

inline size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

inline size_t item_size(DType dtype) {
    switch (dtype) {
    case DType::u8:
    case DType::i8:
    case DType::b:
        return 1;
    case DType::u16:
    case DType::i16:
    case DType::f16:
        return 2;
    case DType::f32:
    case DType::i32:
    case DType::u32:
        return 4;
    case DType::f64:
    case DType::i64:
    case DType::u64:
        return 8;
    }
    return 0;
}

inline size_t elements(const TensorView& x) { return x.bytes / item_size(x.dtype); }

inline bool same_shape(const TensorView& a, const TensorView& b) {
    if (a.rank != b.rank)
        return false;
    for (uint32_t d = 0; d < a.rank; d++)
        if (a.shape[d] != b.shape[d])
            return false;
    return true;
}

// `inputs` tensors are read and the rest, `outputs` of them, written.
inline bool check_arguments(Spec& spec, uint32_t inputs, uint32_t outputs = 1) {
    if (spec.tensors() != inputs + outputs)
        return spec.fail("has %u arguments, expected %u", spec.tensors(), inputs + outputs);
    for (uint32_t i = 0; i < inputs + outputs; i++) {
        Access wanted = i < inputs ? Access::read : Access::write;
        if (spec.tensor(i).access != wanted)
            return spec.fail("'%s' must be %s", spec.tensor(i).name, i < inputs ? "read" : "written");
    }
    return true;
}

inline bool check_dtype(Spec& spec, DType dtype, const char* name) {
    for (uint32_t i = 0; i < spec.tensors(); i++)
        if (spec.tensor(i).dtype != dtype)
            return spec.fail("'%s' is not %s", spec.tensor(i).name, name);
    return true;
}

inline bool check_same_dtype(Spec& spec) {
    for (uint32_t i = 1; i < spec.tensors(); i++)
        if (spec.tensor(i).dtype != spec.tensor(0).dtype)
            return spec.fail("'%s' and '%s' differ in type", spec.tensor(0).name, spec.tensor(i).name);
    return true;
}

// The place of a name in a list, or -1.
template <size_t N> int find_name(const char* name, const char* const (&names)[N]) {
    for (size_t i = 0; i < N; i++)
        if (strcmp(name, names[i]) == 0)
            return static_cast<int>(i);
    return -1;
}

// A list attribute of exactly `count` values; missing ones get `otherwise`. false: spec.fail() was called.
inline bool read_list(Spec& spec, const char* attribute, int64_t* values, int count, int64_t otherwise) {
    int found = spec.integers(attribute, values, count);
    if (found == -1)
        for (int i = 0; i < count; i++)
            values[i] = otherwise;
    else if (found != count)
        return spec.fail("%s has %d values, expected %d", attribute, found, count);
    return true;
}

template <class T> T* allocate(Spec& spec, size_t count = 1) {
    return static_cast<T*>(spec.allocate(count * sizeof(T)));
}

}  // namespace
}  // namespace reef::cpu::REEF_ISA
