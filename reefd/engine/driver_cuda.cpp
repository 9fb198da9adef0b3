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
constexpr int kInvalidValue = 1;           // CUDA_ERROR_INVALID_VALUE

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

// Opaque but for its count; the size is part of the interface (RESOURCE_ABI_VERSION 1).
struct alignas(8) UnitResource {
    int type;
    unsigned char internal[92];
    unsigned count;
    unsigned char more[44];
};
static_assert(sizeof(UnitResource) == 144);
constexpr int kUnits = 1;               // CU_DEV_RESOURCE_TYPE_SM
constexpr unsigned kDefaultStream = 1;  // CU_GREEN_CTX_DEFAULT_STREAM, which is required
constexpr unsigned kNoTiming = 2;       // CU_EVENT_DISABLE_TIMING
struct GreenContext;

// One of the operations of a batch (CUstreamBatchMemOpParams).
struct MemoryOperation {
    int operation;
    void* address;
    uint64_t value;
    unsigned flags;
    void* alias;
    uint64_t pad;
};
static_assert(sizeof(MemoryOperation) == 48);
constexpr int kWriteValue32 = 2;  // CU_STREAM_MEM_OP_WRITE_VALUE_32

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
    int (*memory_operations)(DriverStream*, unsigned, MemoryOperation*, unsigned);
    int (*function_attribute)(DriverFunction*, int, int);
    int (*launch)(const LaunchConfig*, DriverFunction*, void**, void**);
    int (*begin_capture)(DriverStream*, int);
    int (*instantiate)(DriverGraphExec**, DriverGraph*, unsigned long long);
    int (*event_create)(DriverEvent**, unsigned);
    int (*wait_event)(DriverStream*, DriverEvent*, unsigned);
    // Since CUDA 12.4; null before.
    int (*units)(int, UnitResource*, int);
    int (*split)(UnitResource*, unsigned*, const UnitResource*, UnitResource*, unsigned, unsigned);
    int (*describe)(void**, UnitResource*, unsigned);
    int (*green_create)(GreenContext**, void*, int, unsigned);
    int (*green_destroy)(GreenContext*);
    int (*green_stream)(DriverStream**, GreenContext*, unsigned, int);
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
    static constexpr int numbers[kDriverAttributes] = {16, 97, 91, 75, 76, 50, 33, 34};
    return entries.attribute(value, numbers[static_cast<size_t>(which)], device);
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

// Two green contexts share the primary context's memory, modules and functions.
struct CudaSplit {
    GreenContext* aside = nullptr;
    GreenContext* rest = nullptr;
};

int divide(int device, uint32_t aside, UnitResource& first, UnitResource& rest) {
    UnitResource all{};
    unsigned groups = 1;
    const int status = entries.units(device, &all, kUnits);
    return status == 0 ? entries.split(&first, &groups, &all, &rest, 0, aside) : status;
}

uint32_t split_granule(int device, uint32_t compute_units) {
    UnitResource first{}, rest{};
    if (!entries.units || !entries.split || !entries.describe || !entries.green_create || !entries.green_destroy ||
        !entries.green_stream || divide(device, 1, first, rest) != 0)
        return 0;
    return first.count + rest.count == compute_units ? first.count : 0;
}

int make_split(DriverSplit** split, int device, uint32_t compute_units, uint32_t aside) {
    UnitResource parts[2]{};
    if (const int status = divide(device, aside, parts[0], parts[1]))
        return status;
    if (parts[0].count != aside || parts[1].count != compute_units - aside)
        return kInvalidValue;
    auto made = std::make_unique<CudaSplit>();
    GreenContext** contexts[] = {&made->aside, &made->rest};
    int status = 0;
    for (int i = 0; i < 2 && status == 0; i++) {
        void* description = nullptr;
        status = entries.describe(&description, &parts[i], 1);
        if (status == 0)
            status = entries.green_create(contexts[i], description, device, kDefaultStream);
    }
    *split = reinterpret_cast<DriverSplit*>(made.release());
    return status;
}

int destroy_split(DriverSplit* split) {
    const std::unique_ptr<CudaSplit> owned(reinterpret_cast<CudaSplit*>(split));
    for (GreenContext* context : {owned->aside, owned->rest})
        if (context)
            entries.green_destroy(context);
    return 0;
}

// A call for each word would take a microsecond each. With NO_MEMORY_BARRIER (flag 1) kernels that run did not see it
// before they ended.
int write_words(DriverStream* stream, const DriverWord* words, uint32_t count) {
    if (count == 1)
        return entries.write_value(stream, words->device_pointer, words->value, 0);
    MemoryOperation operations[kDriverWords];
    for (uint32_t i = 0; i < count; i++)
        operations[i] = {kWriteValue32, words[i].device_pointer, words[i].value, 0, nullptr, 0};
    return entries.memory_operations(stream, count, operations, 0);
}

int make_split_stream(DriverStream** stream, const DriverSplit* split, bool aside, int priority) {
    const auto* contexts = reinterpret_cast<const CudaSplit*>(split);
    return entries.green_stream(stream, aside ? contexts->aside : contexts->rest, kNonBlocking, priority);
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
    library.bind(entries.memory_operations, {"cuStreamBatchMemOp_v2", "cuStreamBatchMemOp"});
    library.bind(entries.function_attribute, {"cuFuncSetAttribute"});
    library.bind(entries.launch, {"cuLaunchKernelEx"});
    library.bind(entries.begin_capture, {"cuStreamBeginCapture_v2"});
    library.bind(entries.instantiate, {"cuGraphInstantiateWithFlags"});
    library.bind(entries.event_create, {"cuEventCreate"});
    library.bind(entries.wait_event, {"cuStreamWaitEvent"});
    library.bind_if(entries.units, "cuDeviceGetDevResource");
    library.bind_if(entries.split, "cuDevSmResourceSplitByCount");
    library.bind_if(entries.describe, "cuDevResourceGenerateDesc");
    library.bind_if(entries.green_create, "cuGreenCtxCreate");
    library.bind_if(entries.green_destroy, "cuGreenCtxDestroy");
    library.bind_if(entries.green_stream, "cuGreenCtxStreamCreate");

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
    library.bind(driver->download_async, {"cuMemcpyDtoHAsync_v2"});
    library.bind(driver->fill, {"cuMemsetD8Async"});

    library.bind(driver->priorities, {"cuCtxGetStreamPriorityRange"});
    driver->make_stream = [](DriverStream** stream, int priority) {
        return entries.stream_create(stream, kNonBlocking, priority);
    };
    library.bind(driver->destroy_stream, {"cuStreamDestroy_v2"});
    library.bind(driver->query, {"cuStreamQuery"});
    library.bind(driver->synchronize, {"cuStreamSynchronize"});
    driver->write_words = write_words;

    driver->make_event = [](DriverEvent** event) { return entries.event_create(event, kNoTiming); };
    library.bind(driver->destroy_event, {"cuEventDestroy_v2"});
    library.bind(driver->record_event, {"cuEventRecord"});
    driver->wait_event = [](DriverStream* stream, DriverEvent* event) { return entries.wait_event(stream, event, 0); };
    driver->split_granule = split_granule;
    driver->make_split = make_split;
    driver->destroy_split = destroy_split;
    driver->make_split_stream = make_split_stream;

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
