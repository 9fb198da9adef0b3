// SPDX-License-Identifier: Apache-2.0
// A model as read from a resource, before a device loads it, and what every device's loaded model tells the engine.
//
// Everything here comes from a file that is not trusted: each call checks what it is given and throws ModelError.
#pragma once
#include <reef_abi.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace reef {

struct GpuProgram;

// Names the model, the kernel or storage, and says what is wrong.
class ModelError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

// input and output lie in the slot of a request, arena in the execution context, weight in the loaded model.
enum class StorageKind : uint8_t { input, output, arena, weight };
enum class Access : uint8_t { read, write, read_write };
using Attribute = std::variant<int64_t, double, std::string, std::vector<int64_t>, std::vector<double>>;
using Attributes = std::map<std::string, Attribute, std::less<>>;

inline constexpr size_t kAlignment = 64;           // of every tensor in memory that is no view
inline constexpr uint32_t kMaxKernels = 65535;     // of a model: kernel indices fit 16 bits
inline constexpr uint64_t kMaxBytes = 1ull << 40;  // of a storage and of an arena

struct Storage {
    std::string name;
    StorageKind kind;
    reef_dtype dtype;
    std::vector<int64_t> shape;             // each dimension at least 1; row-major, dense
    uint64_t bytes;                         // product of shape and element size
    uint64_t offset;                        // a view: from its base; arena: from its start; input, output: in the slot
    std::shared_ptr<const std::byte> data;  // weight: its bytes, 64-byte aligned unless it is a view
    int64_t base;                           // a view: the storage whose bytes it shows; else -1
};

struct KernelSpec {
    std::string name;
    std::string op;
    std::vector<uint32_t> args;  // storages
    std::vector<Access> access;  // of each argument
    Attributes attributes;
};

// 0 for a number that is no element type.
size_t element_bytes(reef_dtype dtype);
const char* dtype_name(reef_dtype dtype);
// ModelError for an unknown name. Names are NumPy's: float32, uint8, bool, ...
reef_dtype dtype_from_name(std::string_view name);

// Bytes of the arena or of the slot's outputs.
struct ByteRange {
    StorageKind kind;
    uint64_t offset;
    uint64_t bytes;
};

// An instance that is not restorable, and what it both reads and writes: put back what was there before its first block,
// and it may be begun again.
struct Unit {
    uint32_t kernel;
    std::vector<ByteRange> ranges;  // apart from each other
    uint64_t bytes;                 // of all of them
};

class ModelSpec {
public:
    ModelSpec(std::string name, uint64_t arena_bytes);

    uint32_t add_storage(std::string name, StorageKind kind, reef_dtype dtype, std::vector<int64_t> shape,
                         uint64_t offset, std::span<const std::byte> data, int64_t base = -1);
    uint32_t add_kernel(std::string name, std::string op, std::vector<uint32_t> args, std::vector<Access> access,
                        Attributes attributes);
    // Every storage of that kind that is no view, once each, in the order in which a request names them. Gives each its place in the
    // slot's area: one after the other, each on a page.
    void set_inputs(std::vector<uint32_t> storages);
    void set_outputs(std::vector<uint32_t> storages);
    // The model as kernels of a GPU (gpu_program.hpp); a CPU needs none.
    void set_program(std::shared_ptr<const GpuProgram> program) { program_ = std::move(program); }
    const GpuProgram* program() const { return program_.get(); }

    // The checks that need the whole model (model_check.cpp); a device calls it before it loads.
    // Defined: no instance reads, and no output returns, bytes that no earlier kernel of this request has written; so
    // nothing of another request can leak. And no result depends on the order in which a kernel's blocks run.
    // Returns the instances that are not restorable (restorable.hpp): a device runs them as units, or refuses the model.
    [[nodiscard]] std::vector<Unit> check() const;

    const std::string& name() const { return name_; }
    uint64_t arena_bytes() const { return arena_bytes_; }
    const std::vector<Storage>& storages() const { return storages_; }
    // From the start of its arena, slot area or weight, views resolved.
    uint64_t offset(const Storage& storage) const {
        return storage.base < 0 ? storage.offset : storages_[static_cast<size_t>(storage.base)].offset + storage.offset;
    }
    const std::vector<KernelSpec>& kernels() const { return kernels_; }
    const std::vector<uint32_t>& inputs() const { return inputs_; }
    const std::vector<uint32_t>& outputs() const { return outputs_; }
    uint64_t input_bytes() const { return input_bytes_; }  // of a slot's input area, for this model
    uint64_t output_bytes() const { return output_bytes_; }

private:
    uint64_t place(const std::vector<uint32_t>& storages, StorageKind kind);

    std::string name_;
    uint64_t arena_bytes_;
    std::vector<Storage> storages_;
    std::vector<KernelSpec> kernels_;
    std::vector<uint32_t> inputs_;
    std::vector<uint32_t> outputs_;
    std::shared_ptr<const GpuProgram> program_;
    uint64_t input_bytes_ = 0;
    uint64_t output_bytes_ = 0;
};

// An input or output of a loaded model.
struct ModelTensor {
    std::string name;
    reef_dtype dtype;
    std::vector<int64_t> shape;
    uint64_t offset;  // from the slot's area
    uint64_t bytes;
};

struct ModelFacts {
    std::string name;
    std::vector<ModelTensor> inputs;
    std::vector<ModelTensor> outputs;
    uint64_t input_bytes;
    uint64_t output_bytes;
    std::vector<std::string> kernels;  // names
    std::vector<uint32_t> blocks;      // of each kernel instance
    uint64_t weight_bytes;             // that the loaded model holds
    uint64_t arena_bytes;              // of an execution context
    uint64_t snapshot_bytes;           // of an execution context: what units save
};

// A device's own form of a loaded model derives from this.
class DeviceModel {
public:
    virtual ~DeviceModel() = default;
    const ModelFacts& facts() const { return facts_; }
    uint32_t kernels() const { return static_cast<uint32_t>(facts_.kernels.size()); }

protected:
    explicit DeviceModel(const ModelSpec& spec);
    ModelFacts facts_;
};

}  // namespace reef
