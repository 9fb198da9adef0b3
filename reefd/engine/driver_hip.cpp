// SPDX-License-Identifier: Apache-2.0
// The table over libamdhip64.so, from HIP 5 on. Registration is left out: when a client shrinks memory that is
// registered, the kernel driver stops all queues of the process; and there is no word write in stream order that is not a
// kernel, which would have to wait for a free compute unit: the epoch lies in memory that the host writes.
#include "driver.hpp"

namespace reef {
namespace {

constexpr unsigned kNonBlocking = 1;            // hipStreamNonBlocking
constexpr unsigned kHostCoherent = 0x40000003;  // hipHostMallocCoherent | Mapped | Portable
constexpr int kRelaxedCapture = 2;              // hipStreamCaptureModeRelaxed
constexpr int kNotReady = 600;                  // hipErrorNotReady
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
};
Entries entries;

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
    case DriverAttribute::write_word:
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
    library.bind(driver->fill, {"hipMemsetD8Async"});

    library.bind(driver->priorities, {"hipDeviceGetStreamPriorityRange"});
    driver->make_stream = [](DriverStream** stream, int priority) {
        return entries.stream_create(stream, kNonBlocking, priority);
    };
    library.bind(driver->destroy_stream, {"hipStreamDestroy"});
    library.bind(driver->query, {"hipStreamQuery"});
    library.bind(driver->synchronize, {"hipStreamSynchronize"});

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
