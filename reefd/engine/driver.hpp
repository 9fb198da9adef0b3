// SPDX-License-Identifier: Apache-2.0
// What the GPU device needs of a vendor's driver: one table of entry points, filled from libcuda.so.1 (driver_cuda.cpp)
// or libamdhip64.so (driver_hip.cpp) at run time. Nothing is linked, and no header of a vendor is used: a machine
// without a GPU has neither. Structs whose layout changed between versions (device properties) are never asked for.
//
// Every call returns the driver's own status, 0 for success; `error_name` gives its name. Pointers to device memory are
// plain addresses in both vendors' interfaces on the 64-bit systems that this runs on.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace reef {

// Names the call, the driver's error and what it was for.
class DriverError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

struct DriverStream;
struct DriverEvent;
struct DriverSplit;
struct DriverModule;
struct DriverFunction;
struct DriverGraph;
struct DriverGraphExec;

enum class DriverAttribute : uint8_t {
    compute_units,
    block_shared_bytes,  // of one block, asked for
    host_pointers,       // registered host memory has the same address on the device
    capability_major,    // NVIDIA
    capability_minor,    // NVIDIA
    pci_domain,
    pci_bus,
    pci_device,
};
inline constexpr size_t kDriverAttributes = 8;

struct DriverWord {
    void* device_pointer;
    uint32_t value;
};
inline constexpr uint32_t kDriverWords = 64;  // in one call

struct Driver {
    std::string kind;     // "cuda", "hip"
    std::string library;  // what was opened

    // ---- the device
    int (*initialize)() = nullptr;
    int (*version)(int* version) = nullptr;
    int (*count)(int* devices) = nullptr;
    int (*open)(int ordinal, int* device) = nullptr;  // and its context
    int (*make_current)(int device) = nullptr;        // on every thread that calls anything below
    int (*name)(char* name, int room, int device) = nullptr;
    int (*attribute)(DriverAttribute attribute, int* value, int device) = nullptr;
    int (*memory)(size_t* free, size_t* total) = nullptr;
    const char* (*error_name)(int status) = nullptr;

    // ---- memory
    int (*allocate)(void** pointer, size_t bytes) = nullptr;
    int (*release)(void* pointer) = nullptr;
    int (*allocate_host)(void** pointer, size_t bytes) = nullptr;  // page-locked, coherent, with `host_address`
    int (*release_host)(void* pointer) = nullptr;
    int (*host_address)(void** device_pointer, void* pointer) = nullptr;
    int (*register_host)(void* pointer, size_t bytes) = nullptr;  // null: never
    int (*unregister_host)(void* pointer) = nullptr;
    int (*upload)(void* device_pointer, const void* pointer, size_t bytes) = nullptr;
    int (*upload_async)(void* device_pointer, const void* pointer, size_t bytes, DriverStream* stream) = nullptr;
    int (*download_async)(void* pointer, const void* device_pointer, size_t bytes, DriverStream* stream) = nullptr;
    int (*fill)(void* device_pointer, unsigned char byte, size_t bytes, DriverStream* stream) = nullptr;

    // ---- streams
    int (*priorities)(int* least, int* greatest) = nullptr;
    int (*make_stream)(DriverStream** stream, int priority) = nullptr;
    int (*destroy_stream)(DriverStream* stream) = nullptr;
    int (*query)(DriverStream* stream) = nullptr;  // `not_ready` while it has work
    int (*synchronize)(DriverStream* stream) = nullptr;
    // In any order, at most kDriverWords. Null where the device reads the queue epoch from host memory instead.
    int (*write_words)(DriverStream* stream, const DriverWord* words, uint32_t count) = nullptr;
    int not_ready = 0;

    // Work queued on a stream after wait_event() waits for what was queued on another before record_event().
    int (*make_event)(DriverEvent** event) = nullptr;
    int (*destroy_event)(DriverEvent* event) = nullptr;
    int (*record_event)(DriverEvent* event, DriverStream* stream) = nullptr;
    int (*wait_event)(DriverStream* stream, DriverEvent* event) = nullptr;

    // ---- splits: the compute units in two parts. Kernels keep to the part of the stream that they were launched or, on
    // CUDA, captured on; a graph of one part is launched on a stream of that part.
    // The least number of units that can be set aside, of which every other is a multiple; 0: none can.
    uint32_t (*split_granule)(int device, uint32_t compute_units) = nullptr;
    int (*make_split)(DriverSplit** split, int device, uint32_t compute_units, uint32_t aside) = nullptr;
    int (*destroy_split)(DriverSplit* split) = nullptr;  // after its streams
    int (*make_split_stream)(DriverStream** stream, const DriverSplit* split, bool aside, int priority) = nullptr;

    // ---- code
    int (*load_module)(DriverModule** module, const void* code) = nullptr;
    int (*unload_module)(DriverModule* module) = nullptr;
    int (*function)(DriverFunction** function, DriverModule* module, const char* name) = nullptr;
    int (*allow_shared)(DriverFunction* function, uint32_t bytes) = nullptr;  // null: never needed
    // `overlap`: may start while the kernel before it ends (programmatic dependent launch); ignored where there is none.
    int (*launch)(DriverFunction* function, uint32_t blocks, uint32_t threads, uint32_t shared_bytes,
                  DriverStream* stream, void** arguments, bool overlap) = nullptr;

    // ---- graphs
    int (*begin_capture)(DriverStream* stream) = nullptr;
    int (*end_capture)(DriverStream* stream, DriverGraph** graph) = nullptr;
    int (*instantiate)(DriverGraphExec** executable, DriverGraph* graph) = nullptr;
    int (*destroy_graph)(DriverGraph* graph) = nullptr;
    int (*destroy_executable)(DriverGraphExec* executable) = nullptr;
    int (*launch_graph)(DriverGraphExec* executable, DriverStream* stream) = nullptr;

    // Throws unless the status is 0.
    void check(int status, const char* call, const std::string& what = {}) const;
};

// Opened once each and kept: drivers do not survive being closed. DriverError: not there, or an entry point is missing.
std::shared_ptr<const Driver> open_cuda_driver();
std::shared_ptr<const Driver> open_hip_driver();

// A library that is opened by the first of several names, and its symbols.
class DriverLibrary {
public:
    // DriverError lists the names tried.
    explicit DriverLibrary(std::vector<std::string> names);
    // The first of the names that exists; DriverError if none does.
    void* symbol(std::initializer_list<const char*> names) const;
    void* find(const char* name) const;
    const std::string& name() const { return name_; }
    template <class Function> void bind(Function*& entry, std::initializer_list<const char*> names) const {
        entry = reinterpret_cast<Function*>(symbol(names));
    }

    template <class Function> void bind_if(Function*& entry, const char* name) const {
        entry = reinterpret_cast<Function*>(find(name));
    }

private:
    void* handle_ = nullptr;
    std::string name_;
};

}  // namespace reef
