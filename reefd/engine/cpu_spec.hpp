// SPDX-License-Identifier: Apache-2.0
// What a CPU operator's create function sees of a kernel instance (reef::cpu::Spec, kernels/cpu/kernel.hpp).
#pragma once
#include <cstdarg>
#include <kernel.hpp>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model.hpp"

namespace reef {

// Memory of a loaded model's kernels: 64-byte aligned, zeroed, freed with the model.
class KernelMemory {
public:
    void* allocate(size_t bytes);  // null when there is none
    uint64_t bytes() const { return bytes_; }
    // What was allocated, in that order.
    const std::vector<std::span<const std::byte>>& pieces() const { return pieces_; }

private:
    static constexpr size_t kHugePage = size_t{2} << 20;
    static constexpr size_t kSlab = 4 * kHugePage;  // pieces share it; a larger piece has one of its own

    std::vector<std::unique_ptr<void, void (*)(void*)>> slabs_;
    std::byte* next_ = nullptr;  // the rest of the last shared slab
    size_t left_ = 0;
    uint64_t bytes_ = 0;
    std::vector<std::span<const std::byte>> pieces_;
};

class CpuSpec final : public cpu::Spec {
public:
    CpuSpec(const ModelSpec& spec, const KernelSpec& kernel, KernelMemory& memory);

    // Runs create and throws ModelError when it fails, or leaves an attribute unread.
    void create(const cpu::Operator& op, cpu::Kernel& kernel);
    bool packed(uint32_t tensor) const { return packed_[tensor]; }

private:
    friend class cpu::Spec;
    template <class T> const T* find(const char* attribute, const char* type) const;
    const Attribute* find_any(const char* attribute) const;
    void wrong_type(const char* attribute, const char* type) const;
    void set_error(const char* format, va_list arguments) const;

    const KernelSpec& kernel_;
    std::string where_;
    KernelMemory& memory_;
    std::vector<cpu::TensorView> views_;
    std::vector<bool> packed_;
    // const functions of the operator's interface record what went wrong and what was asked for.
    mutable std::string error_;
    mutable std::vector<bool> read_;  // of each attribute, in the map's order
};

}  // namespace reef
