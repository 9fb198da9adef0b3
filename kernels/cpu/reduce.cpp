// SPDX-License-Identifier: Apache-2.0
// reduce: one value of each line along `axes`: sum, mean, max, min, prod, sum_abs or sum_square. y keeps the axes with
// extent 1. The order of additions depends on the shapes only.
#include "dispatch.hpp"
#include "simd.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr size_t kWork = 64 << 10;  // elements read by a block, about
constexpr size_t kStep = 4 << 10;   // elements read between two check points, about
constexpr size_t kColumns = 64;     // results that are worked on together where the last axis is kept
constexpr int kSums = 8;            // running results along a line

enum class Function : uint32_t { sum, mean, max, min, prod, sum_abs, sum_square };
constexpr const char* kNames[] = {"sum", "mean", "max", "min", "prod", "sum_abs", "sum_square"};

struct Axes {
    uint32_t rank;
    size_t count;
    size_t shape[8];
    size_t stride[8];

    size_t at(size_t index) const {
        size_t offset = 0;
        for (uint32_t d = rank; d-- > 0; index /= shape[d])
            offset += index % shape[d] * stride[d];
        return offset;
    }
};

struct Params {
    Function function;
    DType dtype;
    bool columns;      // the last axis is kept: whole rows are added up
    size_t length;     // of the last axis
    Axes kept;         // without the last axis where columns
    Axes reduced;      // without the last axis where not columns
    size_t chunks;     // columns: pieces of the last axis
    size_t per_block;  // results (or pieces of kColumns results) of a block
    size_t units;
    double lines;  // how many values make one result
};

template <Function kFunction, class T> struct Step {
    static T start() {
        if constexpr (kFunction == Function::prod)
            return 1;
        if constexpr (kFunction == Function::max || kFunction == Function::min) {
            constexpr bool most = kFunction == Function::min;
            if constexpr (is_float<T>)
                return most ? static_cast<T>(__builtin_inf()) : -static_cast<T>(__builtin_inf());
            else if constexpr (is_signed<T>) {
                constexpr uint64_t top = uint64_t{1} << (8 * sizeof(T) - 1);
                return static_cast<T>(most ? top - 1 : top);
            } else
                return most ? static_cast<T>(~uint64_t{0}) : T{0};
        }
        return 0;
    }
    static T add(T sum, T x) {
        if constexpr (is_float<T>) {
            if constexpr (kFunction == Function::max)
                return x > sum || x != x ? x : sum;
            else if constexpr (kFunction == Function::min)
                return x < sum || x != x ? x : sum;
            else if constexpr (kFunction == Function::prod)
                return sum * x;
            else if constexpr (kFunction == Function::sum_abs)
                return sum + (x < 0 ? -x : x);
            else if constexpr (kFunction == Function::sum_square)
                return sum + x * x;
            else
                return sum + x;
        } else {
            using U = uint64_t;
            if constexpr (kFunction == Function::max)
                return x > sum ? x : sum;
            else if constexpr (kFunction == Function::min)
                return x < sum ? x : sum;
            else if constexpr (kFunction == Function::prod)
                return static_cast<T>(static_cast<U>(sum) * static_cast<U>(x));
            else if constexpr (kFunction == Function::sum_abs)
                return static_cast<T>(static_cast<U>(sum) + (x < 0 ? U{0} - static_cast<U>(x) : static_cast<U>(x)));
            else if constexpr (kFunction == Function::sum_square)
                return static_cast<T>(static_cast<U>(sum) + static_cast<U>(x) * static_cast<U>(x));
            else
                return static_cast<T>(static_cast<U>(sum) + static_cast<U>(x));
        }
    }
    // Two running results into one.
    static T join(T a, T b) {
        if constexpr (kFunction == Function::sum_abs || kFunction == Function::sum_square)
            return Step<Function::sum, T>::add(a, b);
        return add(a, b);
    }
    static T finish(T sum, double lines) {
        if constexpr (kFunction == Function::mean) {
            if constexpr (is_float<T>)
                return sum / static_cast<T>(lines);
            else
                return static_cast<T>(static_cast<double>(sum) / lines);
        }
        return sum;
    }
};

struct Body {
    // The last axis is reduced: lines of `length` that lie together, kSums running results in each.
    template <class S, class T, class Check>
    static bool along(const Params& p, const T* x, T* y, size_t block, const Check& check) {
        size_t from = block * p.per_block, to = smaller(from + p.per_block, p.kept.count), since = kStep;
        for (size_t result = from; result < to; result++) {
            T sums[kSums];
            for (T& sum : sums)
                sum = S::start();
            const T* origin = x + p.kept.at(result);
            for (size_t line = 0; line < p.reduced.count; line++) {
                const T* values = origin + p.reduced.at(line);
                for (size_t begin = 0; begin < p.length; begin += kStep) {
                    if (since >= kStep) {
                        if (check.stale())
                            return false;
                        since = 0;
                    }
                    size_t end = smaller(begin + kStep, p.length), i = begin;
                    for (; i + kSums <= end; i += kSums)
                        for (int k = 0; k < kSums; k++)
                            sums[k] = S::add(sums[k], values[i + static_cast<size_t>(k)]);
                    for (int k = 0; i < end; i++, k++)
                        sums[k] = S::add(sums[k], values[i]);
                    since += end - begin + 8;
                }
            }
            for (int width = kSums / 2; width > 0; width /= 2)
                for (int k = 0; k < width; k++)
                    sums[k] = S::join(sums[k], sums[k + width]);
            y[result] = S::finish(sums[0], p.lines);
        }
        return true;
    }

    // The last axis is kept: rows are added to each other, kColumns at a time.
    template <class S, class T, class Check>
    static bool across(const Params& p, const T* x, T* y, size_t block, const Check& check) {
        size_t from = block * p.per_block, to = smaller(from + p.per_block, p.units), since = kStep;
        for (size_t unit = from; unit < to; unit++) {
            size_t outer = unit / p.chunks, first = unit % p.chunks * kColumns;
            size_t count = smaller(kColumns, p.length - first);
            T sums[kColumns];
            for (T& sum : sums)
                sum = S::start();
            const T* origin = x + p.kept.at(outer) + first;
            for (size_t line = 0; line < p.reduced.count; line++) {
                if (since >= kStep) {
                    if (check.stale())
                        return false;
                    since = 0;
                }
                const T* values = origin + p.reduced.at(line);
                if (__is_same(T, float) && count == kColumns)
                    for (size_t i = 0; i < kColumns; i++)
                        sums[i] = S::add(sums[i], values[i]);
                else
                    for (size_t i = 0; i < count; i++)
                        sums[i] = S::add(sums[i], values[i]);
                since += count + 8;
            }
            for (size_t i = 0; i < count; i++)
                y[outer * p.length + first + i] = S::finish(sums[i], p.lines);
        }
        return true;
    }

    template <Function kFunction, class T, class Check>
    static bool lines(const Params& p, const BlockArgs& args, const Check& check) {
        using S = Step<kFunction, T>;
        const T* x = static_cast<const T*>(args.args[0]);
        T* y = static_cast<T*>(args.args[1]);
        return p.columns ? across<S>(p, x, y, args.block, check) : along<S>(p, x, y, args.block, check);
    }

    template <Function kFunction, class Check>
    static bool typed(const Params& p, const BlockArgs& args, const Check& check) {
        if (p.dtype == DType::f32)
            return lines<kFunction, float>(p, args, check);
        // The types that networks seldom reduce have one form for both entry points, or the file would take a minute to
        // compile: the plain one looks at a checkpoint that is never stale.
        static constexpr uint32_t kEpoch = 0;
        if constexpr (__is_same(Check, NoCheckpoint))
            return typed<kFunction>(p, args, Checkpoint{&kEpoch, kEpoch});
        else
            return with_number(p.dtype, [&]<class T>(Tag<T>) { return lines<kFunction, T>(p, args, check); });
    }

    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Params& p = *static_cast<const Params*>(kernel.params);
        switch (p.function) {
        case Function::sum:
            return typed<Function::sum>(p, args, check);
        case Function::mean:
            return typed<Function::mean>(p, args, check);
        case Function::max:
            return typed<Function::max>(p, args, check);
        case Function::min:
            return typed<Function::min>(p, args, check);
        case Function::prod:
            return typed<Function::prod>(p, args, check);
        case Function::sum_abs:
            return typed<Function::sum_abs>(p, args, check);
        case Function::sum_square:
            return typed<Function::sum_square>(p, args, check);
        }
        return true;
    }
};

// Axes of extent 1 are left out, and an axis is joined to the one after it where both are reduced or both kept.
void split_axes(const TensorView& x, const bool* reduce, Params& p) {
    size_t extents[8], strides[8], rank = 0;
    bool flags[8];
    size_t stride = elements(x);
    for (uint32_t d = 0; d < x.rank; d++) {
        size_t extent = static_cast<size_t>(x.shape[d]);
        stride /= extent;
        if (extent == 1)
            continue;
        if (rank > 0 && flags[rank - 1] == reduce[d]) {
            extents[rank - 1] *= extent;
            strides[rank - 1] = stride;
        } else {
            extents[rank] = extent;
            strides[rank] = stride;
            flags[rank++] = reduce[d];
        }
    }
    p.columns = rank > 0 && !flags[rank - 1];
    p.length = rank > 0 ? extents[rank - 1] : 1;
    p.kept.count = p.reduced.count = 1;
    for (size_t d = 0; d + 1 < rank; d++) {
        Axes& axes = flags[d] ? p.reduced : p.kept;
        axes.shape[axes.rank] = extents[d];
        axes.stride[axes.rank++] = strides[d];
        axes.count *= extents[d];
    }
}

bool create(Spec& spec, Kernel& kernel) {
    if (!check_arguments(spec, 1) || !check_same_dtype(spec))
        return false;
    const TensorView &x = spec.tensor(0), &y = spec.tensor(1);
    const char* name = spec.string("function", "");
    int function = find_name(name, kNames);
    if (function < 0)
        return spec.fail("unknown function '%.40s'", name);
    int64_t axes[8];
    int count = spec.integers("axes", axes, 8);
    if (count < 0 || count > 8)
        return spec.fail("axes are missing");
    bool reduce[8] = {};
    for (int i = 0; i < count; i++) {
        if (axes[i] < 0 || axes[i] >= static_cast<int64_t>(x.rank))
            return spec.fail("axis %lld", static_cast<long long>(axes[i]));
        reduce[axes[i]] = true;
    }
    if (x.rank != y.rank)
        return spec.fail("'%s' and '%s' differ in rank", x.name, y.name);
    for (uint32_t d = 0; d < x.rank; d++)
        if (y.shape[d] != (reduce[d] ? 1 : x.shape[d]))
            return spec.fail("axis %u of '%s' has extent %lld", d, y.name, static_cast<long long>(y.shape[d]));
    if (!with_number(x.dtype, [](auto) { return true; }))
        return spec.fail("'%s' has a type that cannot be added", x.name);
    Params* p = allocate<Params>(spec);
    if (!p)
        return false;
    p->function = static_cast<Function>(function);
    p->dtype = x.dtype;
    p->lines = static_cast<double>(elements(x)) / static_cast<double>(elements(y));
    split_axes(x, reduce, *p);
    p->chunks = p->columns ? ceil_div(p->length, kColumns) : 1;
    p->units = p->kept.count * p->chunks;
    size_t work = p->reduced.count * (p->columns ? smaller(kColumns, p->length) : p->length) + 8;
    p->per_block = work >= kWork ? 1 : kWork / work;
    return finish<Body>(spec, kernel, p, ceil_div(p->units, p->per_block));
}

}  // namespace

extern const Operator reduce;
const Operator reduce{"reduce", create};

}  // namespace reef::cpu::REEF_ISA
