// SPDX-License-Identifier: Apache-2.0
#include "cpu_spec.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace reef {

static_assert(
    static_cast<uint32_t>(cpu::DType::f32) == REEF_FLOAT32 && static_cast<uint32_t>(cpu::DType::u8) == REEF_UINT8 &&
    static_cast<uint32_t>(cpu::DType::i8) == REEF_INT8 && static_cast<uint32_t>(cpu::DType::u16) == REEF_UINT16 &&
    static_cast<uint32_t>(cpu::DType::i16) == REEF_INT16 && static_cast<uint32_t>(cpu::DType::i32) == REEF_INT32 &&
    static_cast<uint32_t>(cpu::DType::i64) == REEF_INT64 && static_cast<uint32_t>(cpu::DType::b) == REEF_BOOL &&
    static_cast<uint32_t>(cpu::DType::f16) == REEF_FLOAT16 && static_cast<uint32_t>(cpu::DType::f64) == REEF_FLOAT64 &&
    static_cast<uint32_t>(cpu::DType::u32) == REEF_UINT32 && static_cast<uint32_t>(cpu::DType::u64) == REEF_UINT64);

void* KernelMemory::allocate(size_t bytes) {
    if (bytes > kMaxBytes)
        return nullptr;
    const size_t room = (bytes + kAlignment) / kAlignment * kAlignment;
    std::byte* piece = next_;
    if (room > left_) {
        const size_t size = std::max(room, kSlab);
        piece = static_cast<std::byte*>(std::aligned_alloc(kHugePage, (size + kHugePage - 1) / kHugePage * kHugePage));
        if (!piece)
            return nullptr;
        slabs_.emplace_back(piece, std::free);
        madvise(piece, size, MADV_HUGEPAGE);  // weights are streamed: fewer TLB misses where the system has them
        if (size - room > left_) {
            next_ = piece;
            left_ = size;
        }
    }
    if (piece == next_) {
        next_ += room;
        left_ -= room;
    }
    std::memset(piece, 0, room);
    bytes_ += room;
    pieces_.emplace_back(piece, room);
    return piece;
}

CpuSpec::CpuSpec(const ModelSpec& spec, const KernelSpec& kernel, KernelMemory& memory)
    : kernel_(kernel), where_(spec.name() + ": kernel '" + kernel.name + "' (" + kernel.op + ")"), memory_(memory),
      packed_(kernel.args.size()), read_(kernel.attributes.size()) {
    for (size_t i = 0; i < kernel.args.size(); i++) {
        const Storage& storage = spec.storages()[kernel.args[i]];
        cpu::TensorView view{};
        view.name = storage.name.c_str();
        view.dtype = static_cast<cpu::DType>(storage.dtype);
        view.rank = static_cast<uint32_t>(storage.shape.size());
        std::copy(storage.shape.begin(), storage.shape.end(), view.shape);
        view.bytes = storage.bytes;
        view.access = static_cast<cpu::Access>(kernel.access[i]);
        view.constant = storage.data.get();
        views_.push_back(view);
    }
}

void CpuSpec::create(const cpu::Operator& op, cpu::Kernel& kernel) {
    kernel = {};
    bool created = op.create(*this, kernel);
    if (!error_.empty())
        throw ModelError(where_ + ": " + error_);
    if (!created)
        throw ModelError(where_ + ": refused by the operator");
    size_t index = 0;
    for (const auto& [name, value] : kernel_.attributes)
        if (!read_[index++])
            throw ModelError(where_ + ": attribute '" + name + "' has no meaning here");
    if (kernel.blocks < 1 || kernel.blocks > cpu::kMaxBlocks || kernel.scratch_bytes > cpu::kMaxScratch ||
        !kernel.run || !kernel.run_preemptible)
        throw ModelError(where_ + ": the operator made " + std::to_string(kernel.blocks) + " blocks with " +
                         std::to_string(kernel.scratch_bytes) + " bytes of scratch, which is outside the limits");
}

const Attribute* CpuSpec::find_any(const char* attribute) const {
    auto found = kernel_.attributes.find(std::string_view(attribute));
    if (found == kernel_.attributes.end())
        return nullptr;
    read_[static_cast<size_t>(std::distance(kernel_.attributes.begin(), found))] = true;
    return &found->second;
}

template <class T> const T* CpuSpec::find(const char* attribute, const char* type) const {
    const Attribute* found = find_any(attribute);
    if (!found)
        return nullptr;
    const T* value = std::get_if<T>(found);
    if (!value)
        wrong_type(attribute, type);
    return value;
}

void CpuSpec::wrong_type(const char* attribute, const char* type) const {
    if (error_.empty())
        error_ = std::string("attribute '") + attribute + "' is not " + type;
}

void CpuSpec::set_error(const char* format, va_list arguments) const {
    char text[512];
    std::vsnprintf(text, sizeof text, format, arguments);
    if (error_.empty())
        error_ = text;
}

namespace cpu {

// Every Spec is the base of a CpuSpec: its constructor is protected and nothing else derives from it.
static const CpuSpec& self(const Spec* spec) { return *static_cast<const CpuSpec*>(spec); }

uint32_t Spec::tensors() const { return static_cast<uint32_t>(self(this).views_.size()); }

const TensorView& Spec::tensor(uint32_t index) const {
    static const TensorView none{"(missing)", DType::f32, 0, {}, 0, Access::read, nullptr};
    const CpuSpec& spec = self(this);
    if (index < spec.views_.size())
        return spec.views_[index];
    if (spec.error_.empty())
        spec.error_ = "has " + std::to_string(spec.views_.size()) + " arguments, which is too few";
    return none;
}

int64_t Spec::integer(const char* attribute, int64_t otherwise) const {
    const int64_t* value = self(this).find<int64_t>(attribute, "an integer");
    return value ? *value : otherwise;
}

double Spec::number(const char* attribute, double otherwise) const {
    const CpuSpec& spec = self(this);
    const Attribute* found = spec.find_any(attribute);
    if (!found)
        return otherwise;
    if (const int64_t* integer = std::get_if<int64_t>(found))
        return static_cast<double>(*integer);
    if (const double* number = std::get_if<double>(found))
        return *number;
    spec.wrong_type(attribute, "a number");
    return otherwise;
}

const char* Spec::string(const char* attribute, const char* otherwise) const {
    const std::string* value = self(this).find<std::string>(attribute, "a string");
    return value ? value->c_str() : otherwise;
}

int Spec::integers(const char* attribute, int64_t* values, int room) const {
    const std::vector<int64_t>* list = self(this).find<std::vector<int64_t>>(attribute, "a list of integers");
    if (!list)
        return -1;
    for (int i = 0; i < room && static_cast<size_t>(i) < list->size(); i++)
        values[i] = (*list)[static_cast<size_t>(i)];
    return static_cast<int>(list->size());
}

int Spec::numbers(const char* attribute, double* values, int room) const {
    const CpuSpec& spec = self(this);
    const Attribute* found = spec.find_any(attribute);
    if (!found)
        return -1;
    auto copy = [&](const auto& list) {
        for (int i = 0; i < room && static_cast<size_t>(i) < list.size(); i++)
            values[i] = static_cast<double>(list[static_cast<size_t>(i)]);
        return static_cast<int>(list.size());
    };
    if (const auto* integers = std::get_if<std::vector<int64_t>>(found))
        return copy(*integers);
    if (const auto* numbers = std::get_if<std::vector<double>>(found))
        return copy(*numbers);
    spec.wrong_type(attribute, "a list of numbers");
    return -1;
}

void* Spec::allocate(size_t bytes) {
    void* piece = static_cast<CpuSpec*>(this)->memory_.allocate(bytes);
    if (!piece)
        fail("no memory for %zu bytes", bytes);
    return piece;
}

void Spec::packed(uint32_t tensor) {
    CpuSpec& spec = *static_cast<CpuSpec*>(this);
    if (tensor < spec.packed_.size() && spec.views_[tensor].constant)
        spec.packed_[tensor] = true;
}

bool Spec::fail(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    self(this).set_error(format, arguments);
    va_end(arguments);
    return false;
}

}  // namespace cpu
}  // namespace reef
