// SPDX-License-Identifier: Apache-2.0
// The table over libamdhip64.so, from HIP 5 on. Registration is left out: when a client shrinks memory that is
// registered, the kernel driver stops all queues of the process; and there is no word write in stream order that is not a
// kernel, which would have to wait for a free compute unit: the epoch lies in memory that the host writes.
#include <algorithm>

#include "driver.hpp"

namespace reef {
namespace {

constexpr unsigned kNonBlocking = 1;            // hipStreamNonBlocking
constexpr unsigned kHostCoherent = 0x40000003;  // hipHostMallocCoherent | Mapped | Portable
constexpr int kRelaxedCapture = 2;              // hipStreamCaptureModeRelaxed
constexpr int kNotReady = 600;                  // hipErrorNotReady
constexpr unsigned kNoTiming = 2;               // hipEventDisableTiming
constexpr int kInvalidValue = 1;                // hipErrorInvalidValue

struct Entries {
    int (*init)(unsigned);
    int (*device_get)(int*, int);
    int (*attribute)(int*, int, int);
    const char* (*error_name)(int);
    int (*host_alloc)(void**, size_t, unsigned);
    int (*host_address)(void**, void*, unsigned);
    int (*stream_create)(DriverStream**, unsigned, int);
    int (*launch)(DriverFunction*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, DriverStream*,
                  void**, void**);
    int (*begin_capture)(DriverStream*, int);
    int (*instantiate)(DriverGraphExec**, DriverGraph*, unsigned long long);
    int (*set_device)(int);
    int (*event_create)(DriverEvent**, unsigned);
    int (*wait_event)(DriverStream*, DriverEvent*, unsigned);
    int (*masked_stream)(DriverStream**, uint32_t, const uint32_t*);
};
Entries entries;

// Bits of a mask go round the shader engines, so a part is even over them if it is a multiple of their number. Each
// masked stream takes a hardware queue of its own: few splits are offered.
constexpr uint32_t kShaderEngines = 4;

struct HipSplit {
    std::vector<uint32_t> aside, rest;
};

int open_device(int ordinal, int* device) {
    const int status = entries.device_get(device, ordinal);
    return status == 0 ? entries.set_device(*device) : status;
}

int attribute(DriverAttribute which, int* value, int device) {
    switch (which) {
    case DriverAttribute::compute_units:
        return entries.attribute(value, 63, device);
    case DriverAttribute::block_shared_bytes:
        return entries.attribute(value, 74, device);
    case DriverAttribute::pci_domain:
        return entries.attribute(value, 69, device);
    case DriverAttribute::pci_bus:
        return entries.attribute(value, 67, device);
    case DriverAttribute::pci_device:
        return entries.attribute(value, 68, device);
    case DriverAttribute::host_pointers:
        *value = 0;
        return 0;
    case DriverAttribute::capability_major:
    case DriverAttribute::capability_minor:
        break;
    }
    return kInvalidValue;
}

int launch(DriverFunction* function, uint32_t blocks, uint32_t threads, uint32_t shared_bytes, DriverStream* stream,
           void** arguments, bool) {
    return entries.launch(function, blocks, 1, 1, threads, 1, 1, shared_bytes, stream, arguments, nullptr);
}

uint32_t split_granule(int, uint32_t compute_units) {
    if (!entries.masked_stream || compute_units < 2 * kShaderEngines)
        return 0;
    return std::max(1u, compute_units / 5 / kShaderEngines) * kShaderEngines;
}

int make_split(DriverSplit** split, int, uint32_t compute_units, uint32_t aside) {
    auto made = std::make_unique<HipSplit>();
    made->aside.resize((compute_units + 31) / 32);
    made->rest.resize(made->aside.size());
    for (uint32_t unit = 0; unit < compute_units; unit++)
        (unit < compute_units - aside ? made->rest : made->aside)[unit / 32] |= 1u << unit % 32;
    *split = reinterpret_cast<DriverSplit*>(made.release());
    return 0;
}

int destroy_split(DriverSplit* split) {
    delete reinterpret_cast<HipSplit*>(split);
    return 0;
}

// Masked streams have one priority; the masks keep them apart.
int make_split_stream(DriverStream** stream, const DriverSplit* split, bool aside, int) {
    const auto* masks = reinterpret_cast<const HipSplit*>(split);
    const std::vector<uint32_t>& mask = aside ? masks->aside : masks->rest;
    return entries.masked_stream(stream, static_cast<uint32_t>(mask.size()), mask.data());
}

std::shared_ptr<const Driver> make() {
    const DriverLibrary library({"libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5", "libamdhip64.so"});
    auto driver = std::make_shared<Driver>();
    driver->kind = "hip";
    driver->library = library.name();
    driver->not_ready = kNotReady;
    library.bind(entries.init, {"hipInit"});
    library.bind(entries.device_get, {"hipDeviceGet"});
    library.bind(entries.set_device, {"hipSetDevice"});
    library.bind(entries.attribute, {"hipDeviceGetAttribute"});
    library.bind(entries.error_name, {"hipGetErrorName"});
    library.bind(entries.host_alloc, {"hipHostMalloc"});
    library.bind(entries.host_address, {"hipHostGetDevicePointer"});
    library.bind(entries.stream_create, {"hipStreamCreateWithPriority"});
    library.bind(entries.launch, {"hipModuleLaunchKernel"});
    library.bind(entries.begin_capture, {"hipStreamBeginCapture"});
    library.bind(entries.instantiate, {"hipGraphInstantiateWithFlags"});
    library.bind(entries.event_create, {"hipEventCreateWithFlags"});
    library.bind(entries.wait_event, {"hipStreamWaitEvent"});
    library.bind_if(entries.masked_stream, "hipExtStreamCreateWithCUMask");

    driver->initialize = [] { return entries.init(0); };
    library.bind(driver->version, {"hipDriverGetVersion"});
    library.bind(driver->count, {"hipGetDeviceCount"});
    driver->open = open_device;
    driver->make_current = [](int device) { return entries.set_device(device); };
    library.bind(driver->name, {"hipDeviceGetName"});
    driver->attribute = attribute;
    library.bind(driver->memory, {"hipMemGetInfo"});
    driver->error_name = [](int status) { return entries.error_name(status); };

    library.bind(driver->allocate, {"hipMalloc"});
    library.bind(driver->release, {"hipFree"});
    driver->allocate_host = [](void** pointer, size_t bytes) {
        return entries.host_alloc(pointer, bytes, kHostCoherent);
    };
    library.bind(driver->release_host, {"hipHostFree"});
    driver->host_address = [](void** device, void* host) { return entries.host_address(device, host, 0); };
    library.bind(driver->upload, {"hipMemcpyHtoD"});
    library.bind(driver->upload_async, {"hipMemcpyHtoDAsync"});
    library.bind(driver->download_async, {"hipMemcpyDtoHAsync"});
    library.bind(driver->fill, {"hipMemsetD8Async"});

    library.bind(driver->priorities, {"hipDeviceGetStreamPriorityRange"});
    driver->make_stream = [](DriverStream** stream, int priority) {
        return entries.stream_create(stream, kNonBlocking, priority);
    };
    library.bind(driver->destroy_stream, {"hipStreamDestroy"});
    library.bind(driver->query, {"hipStreamQuery"});
    library.bind(driver->synchronize, {"hipStreamSynchronize"});

    driver->make_event = [](DriverEvent** event) { return entries.event_create(event, kNoTiming); };
    library.bind(driver->destroy_event, {"hipEventDestroy"});
    library.bind(driver->record_event, {"hipEventRecord"});
    driver->wait_event = [](DriverStream* stream, DriverEvent* event) { return entries.wait_event(stream, event, 0); };
    driver->split_granule = split_granule;
    driver->make_split = make_split;
    driver->destroy_split = destroy_split;
    driver->make_split_stream = make_split_stream;

    library.bind(driver->load_module, {"hipModuleLoadData"});
    library.bind(driver->unload_module, {"hipModuleUnload"});
    library.bind(driver->function, {"hipModuleGetFunction"});
    driver->launch = launch;

    driver->begin_capture = [](DriverStream* stream) { return entries.begin_capture(stream, kRelaxedCapture); };
    library.bind(driver->end_capture, {"hipStreamEndCapture"});
    driver->instantiate = [](DriverGraphExec** executable, DriverGraph* graph) {
        return entries.instantiate(executable, graph, 0);
    };
    library.bind(driver->destroy_graph, {"hipGraphDestroy"});
    library.bind(driver->destroy_executable, {"hipGraphExecDestroy"});
    library.bind(driver->launch_graph, {"hipGraphLaunch"});
    driver->check(driver->initialize(), "hipInit");
    return driver;
}

}  // namespace

std::shared_ptr<const Driver> open_hip_driver() {
    static const std::shared_ptr<const Driver> driver = make();
    return driver;
}

}  // namespace reef
