// SPDX-License-Identifier: Apache-2.0
// The contract between the CPU device and its kernels.
//
// A kernel instance is one kernel with its shapes fixed. It is cut into blocks, the unit of work of one worker and the
// unit of restoration: a block reads only what no block of the instance writes, writes only what no other block writes,
// uses no atomics and waits for nobody. (Where a resource makes an argument that operators.inc marks with `=` lie where the
// result lies, a block also reads what it will overwrite itself; the device then saves it before the instance begins.) How an instance is cut never depends on the number of workers, and a block's
// arithmetic never on the order of blocks, so outputs have the same bits however they were scheduled. Workers flush
// subnormal numbers to zero: they would break every bound on processors that are slow with them.
//
// Each instance has two entry points made from one source: run (plain, for real-time work) and run_preemptible, which
// calls Checkpoint::stale() at least every 20 us and returns false at once when it is set, leaving its outputs undefined.
//
// The operator files are compiled once for each instruction set, in the namespace reef::cpu::REEF_ISA. They must not
// create weak symbols (inline functions and templates of the standard library), nor code that runs when the module is
// loaded: the linker would keep one copy for all, perhaps the one that needs AVX-512. Helpers go in anonymous
// namespaces, libm is called by its C names (expf); a test reads the object files.
//
// An operator file `name.cpp` ends with
//     extern const Operator name;
//     const Operator name{"name", create};
// and has its line in operators.inc.
#pragma once
#include <cstddef>
#include <cstdint>

namespace reef::cpu {

enum class DType : uint32_t {
    f32 = 1,
    u8 = 2,
    i8 = 3,
    u16 = 4,
    i16 = 5,
    i32 = 6,
    i64 = 7,
    b = 9,
    f16 = 10,
    f64 = 11,
    u32 = 12,
    u64 = 13
};

enum class Access : uint8_t { read, write, read_write };

// Dense, row-major, as it lies in memory (feature maps are N, H, W, C unless an attribute says otherwise).
struct TensorView {
    const char* name;
    DType dtype;
    uint32_t rank;
    int64_t shape[8];
    size_t bytes;
    Access access;
    const void* constant;  // weights: their data, valid while the model is loaded; else null
};

// The processor's own clock: constant rate, cheap to read, of unknown unit.
__attribute__((always_inline)) inline uint64_t ticks() {
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t value;
    asm volatile("mrs %0, cntvct_el0" : "=r"(value));
    return value;
#else
#error "this processor needs a clock here"
#endif
}

// Measures the time between the check points of a block, in ticks.
struct Probe {
    uint64_t last;     // the check point before, or where the block began
    uint64_t longest;  // between two of them
    __attribute__((always_inline)) void pass() {
        const uint64_t now = ticks();
        longest = now - last > longest ? now - last : longest;
        last = now;
    }
};

// Where a preemptible block looks whether its window is still valid. While profiling, the epoch is stale from the start
// and every look passes the probe instead of ending the block: what is measured is the code that runs, and other runs
// pay nothing for it.
struct Checkpoint {
    const uint32_t* queue_epoch;
    uint32_t window_epoch;
    Probe* probe = nullptr;
    __attribute__((always_inline)) bool stale() const {
        if (__builtin_expect(__atomic_load_n(queue_epoch, __ATOMIC_RELAXED) == window_epoch, 1))
            return false;
        if (probe)
            probe->pass();
        return probe == nullptr;
    }
};

struct NoCheckpoint {
    __attribute__((always_inline)) static constexpr bool stale() { return false; }
};

// What a block gets. args[i] is where tensor i of the instance lies in this request (aligned to its element, for it may
// be a view; null for a packed constant); scratch is private to the worker, 64-byte aligned, its contents undefined.
struct BlockArgs {
    void* const* args;
    uint32_t block;
    void* scratch;
};

// Limits of one instance; the device refuses others.
inline constexpr uint32_t kMaxBlocks = (1u << 23) - 1;
inline constexpr size_t kMaxScratch = size_t{64} << 20;

// One kernel instance, immutable once made. params points at the operator's own plain struct (Spec::allocate).
struct Kernel {
    uint32_t blocks;  // 1 .. kMaxBlocks
    size_t scratch_bytes;
    const void* params;
    void (*run)(const Kernel&, const BlockArgs&);
    bool (*run_preemptible)(const Kernel&, const BlockArgs&, const Checkpoint&);
};

// What an operator's create function is given: its tensors in order of the arguments, its attributes, memory that lives
// as long as the model (64-byte aligned), and a way to say what is wrong. Nothing here is inline, for the reason above.
// An attribute of another type than asked for, and one that create never asks for, fail the load: a resource means
// something by each of its attributes. Before create runs, the device has checked that every dimension is at least 1,
// that `bytes` is the product of shape and element size, and that what is written overlaps nothing else of the instance,
// or one of those marked arguments exactly.
class Spec {
public:
    uint32_t tensors() const;
    const TensorView& tensor(uint32_t index) const;
    int64_t integer(const char* attribute, int64_t otherwise) const;
    double number(const char* attribute, double otherwise) const;
    const char* string(const char* attribute, const char* otherwise) const;
    // The list's length, or -1 when the attribute is missing; at most `room` values are written.
    int integers(const char* attribute, int64_t* values, int room) const;
    int numbers(const char* attribute, double* values, int room) const;
    // Zeroed. Null when there is no memory; fail() was called then.
    void* allocate(size_t bytes);
    // The constant was packed into memory of the instance: args[tensor] is null, and the original is freed after
    // loading unless another instance needs it.
    void packed(uint32_t tensor);
    // Always returns false, so that create functions can `return spec.fail("...")`. printf-like.
    bool fail(const char* format, ...) __attribute__((format(printf, 2, 3)));

protected:
    Spec() = default;
    ~Spec() = default;
};

struct Operator {
    const char* name;  // "conv2d": the `op` of model.json
    // Checks shapes and attributes completely (a resource is not trusted), packs constants, fills in the kernel.
    // false: spec.fail() was called with the reason.
    bool (*create)(Spec& spec, Kernel& kernel);
};

// One table for each instruction set (table.cpp), ended by a null pointer; chosen once by the device.
using OperatorTable = const Operator* const*;
OperatorTable operators_portable();
#if defined(__x86_64__)
OperatorTable operators_avx2();
OperatorTable operators_avx512();
#endif

}  // namespace reef::cpu
