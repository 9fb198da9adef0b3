// SPDX-License-Identifier: Apache-2.0
// The table over libcuda.so.1. Numbers and structs are those of the driver's documented interface, which is stable.
#include "driver.hpp"

namespace reef {
namespace {

constexpr unsigned kNonBlocking = 1;       // CU_STREAM_NON_BLOCKING
constexpr unsigned kMappedPortable = 3;    // CU_MEMHOSTALLOC_PORTABLE | DEVICEMAP; the same bits for registration
constexpr int kRelaxedCapture = 2;         // CU_STREAM_CAPTURE_MODE_RELAXED
constexpr int kMaxDynamicSharedBytes = 8;  // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
constexpr int kNotReady = 600;             // CUDA_ERROR_NOT_READY

struct LaunchAttribute {
    int id;
    char pad[4];
    int value[16];
};
constexpr int kProgrammaticSerialization = 6;

struct LaunchConfig {
    unsigned grid[3];
    unsigned block[3];
    unsigned shared_bytes;
    DriverStream* stream;
    LaunchAttribute* attributes;
    unsigned attribute_count;
};

// Entries whose arguments differ from the table's.
struct Entries {
    int (*init)(unsigned);
    int (*device_get)(int*, int);
    int (*retain)(void**, int);
    int (*set_current)(void*);
    int (*attribute)(int*, int, int);
    int (*error_name)(int, const char**);
    int (*host_alloc)(void**, size_t, unsigned);
    int (*host_address)(void**, void*, unsigned);
    int (*host_register)(void*, size_t, unsigned);
    int (*stream_create)(DriverStream**, unsigned, int);
    int (*write_value)(DriverStream*, void*, uint32_t, unsigned);
    int (*function_attribute)(DriverFunction*, int, int);
    int (*launch)(const LaunchConfig*, DriverFunction*, void**, void**);
    int (*begin_capture)(DriverStream*, int);
    int (*instantiate)(DriverGraphExec**, DriverGraph*, unsigned long long);
    void* context = nullptr;
};
Entries entries;

int open_device(int ordinal, int* device) {
    int status = entries.device_get(device, ordinal);
    if (status == 0)
        status = entries.retain(&entries.context, *device);
    return status == 0 ? entries.set_current(entries.context) : status;
}

int attribute(DriverAttribute which, int* value, int device) {
    static constexpr int numbers[kDriverAttributes] = {16, 97, 91, 75, 76, 92, 50, 33, 34};
    const int status = entries.attribute(value, numbers[static_cast<size_t>(which)], device);
    if (which == DriverAttribute::write_word && status == 0)
        *value = 1;  // of every driver that has this entry; the attribute tells of its first version only
    return status;
}

const char* error_name(int status) {
    const char* text = nullptr;
    entries.error_name(status, &text);
    return text;
}

int launch(DriverFunction* function, uint32_t blocks, uint32_t threads, uint32_t shared_bytes, DriverStream* stream,
           void** arguments, bool overlap) {
    LaunchAttribute attribute{kProgrammaticSerialization, {}, {1}};
    const LaunchConfig config{{blocks, 1, 1}, {threads, 1, 1}, shared_bytes, stream, &attribute, overlap ? 1u : 0u};
    return entries.launch(&config, function, arguments, nullptr);
}

std::shared_ptr<const Driver> make() {
    const DriverLibrary library({"libcuda.so.1"});
    auto driver = std::make_shared<Driver>();
    driver->kind = "cuda";
    driver->library = library.name();
    driver->not_ready = kNotReady;
    library.bind(entries.init, {"cuInit"});
    library.bind(entries.device_get, {"cuDeviceGet"});
    library.bind(entries.retain, {"cuDevicePrimaryCtxRetain"});
    library.bind(entries.set_current, {"cuCtxSetCurrent"});
    library.bind(entries.attribute, {"cuDeviceGetAttribute"});
    library.bind(entries.error_name, {"cuGetErrorName"});
    library.bind(entries.host_alloc, {"cuMemHostAlloc"});
    library.bind(entries.host_address, {"cuMemHostGetDevicePointer_v2"});
    library.bind(entries.host_register, {"cuMemHostRegister_v2"});
    library.bind(entries.stream_create, {"cuStreamCreateWithPriority"});
    library.bind(entries.write_value, {"cuStreamWriteValue32_v2", "cuStreamWriteValue32"});
    library.bind(entries.function_attribute, {"cuFuncSetAttribute"});
    library.bind(entries.launch, {"cuLaunchKernelEx"});
    library.bind(entries.begin_capture, {"cuStreamBeginCapture_v2"});
    library.bind(entries.instantiate, {"cuGraphInstantiateWithFlags"});

    driver->initialize = [] { return entries.init(0); };
    library.bind(driver->version, {"cuDriverGetVersion"});
    library.bind(driver->count, {"cuDeviceGetCount"});
    driver->open = open_device;
    driver->make_current = [](int) { return entries.set_current(entries.context); };
    library.bind(driver->name, {"cuDeviceGetName"});
    driver->attribute = attribute;
    library.bind(driver->memory, {"cuMemGetInfo_v2"});
    driver->error_name = error_name;

    library.bind(driver->allocate, {"cuMemAlloc_v2"});
    library.bind(driver->release, {"cuMemFree_v2"});
    driver->allocate_host = [](void** pointer, size_t bytes) {
        return entries.host_alloc(pointer, bytes, kMappedPortable);
    };
    library.bind(driver->release_host, {"cuMemFreeHost"});
    driver->host_address = [](void** device, void* host) { return entries.host_address(device, host, 0); };
    driver->register_host = [](void* pointer, size_t bytes) {
        return entries.host_register(pointer, bytes, kMappedPortable);
    };
    library.bind(driver->unregister_host, {"cuMemHostUnregister"});
    library.bind(driver->upload, {"cuMemcpyHtoD_v2"});
    library.bind(driver->upload_async, {"cuMemcpyHtoDAsync_v2"});
    library.bind(driver->fill, {"cuMemsetD8Async"});

    library.bind(driver->priorities, {"cuCtxGetStreamPriorityRange"});
    driver->make_stream = [](DriverStream** stream, int priority) {
        return entries.stream_create(stream, kNonBlocking, priority);
    };
    library.bind(driver->destroy_stream, {"cuStreamDestroy_v2"});
    library.bind(driver->query, {"cuStreamQuery"});
    library.bind(driver->synchronize, {"cuStreamSynchronize"});
    driver->write_word = [](DriverStream* stream, void* pointer, uint32_t value) {
        return entries.write_value(stream, pointer, value, 0);
    };

    library.bind(driver->load_module, {"cuModuleLoadData"});
    library.bind(driver->unload_module, {"cuModuleUnload"});
    library.bind(driver->function, {"cuModuleGetFunction"});
    driver->allow_shared = [](DriverFunction* function, uint32_t bytes) {
        return entries.function_attribute(function, kMaxDynamicSharedBytes, static_cast<int>(bytes));
    };
    driver->launch = launch;

    driver->begin_capture = [](DriverStream* stream) { return entries.begin_capture(stream, kRelaxedCapture); };
    library.bind(driver->end_capture, {"cuStreamEndCapture"});
    driver->instantiate = [](DriverGraphExec** executable, DriverGraph* graph) {
        return entries.instantiate(executable, graph, 0);
    };
    library.bind(driver->destroy_graph, {"cuGraphDestroy"});
    library.bind(driver->destroy_executable, {"cuGraphExecDestroy"});
    library.bind(driver->launch_graph, {"cuGraphLaunch"});
    driver->check(driver->initialize(), "cuInit");
    return driver;
}

}  // namespace

std::shared_ptr<const Driver> open_cuda_driver() {
    static const std::shared_ptr<const Driver> driver = make();
    return driver;
}

}  // namespace reef
