// SPDX-License-Identifier: Apache-2.0
// A GPU driver without a GPU: libcuda.so.1 or libamdhip64.so.7 (names.hpp gives the same functions either vendor's names),
// so that the engine's real code runs in tests. A stream is a thread; kernels are those of kernels/gpu compiled for the
// host and run as grids of fibers, so epoch writes, progress and retirement race as they do on a device.
//
// It is stricter than a driver: device memory starts as garbage, a call on a thread without a current device fails, a
// stream that is captured runs nothing, and memory that is freed while a word of it is still to be written is a fault. The environment makes it fail on purpose, read anew by each call:
//   REEF_STANDIN_MEMORY       bytes of device memory
//   REEF_STANDIN_NO_REGISTER  host memory cannot be registered
//   REEF_STANDIN_NO_SPLITS    CUDA: the compute units cannot be split
//   REEF_STANDIN_FAULT        the kernel launch of this number faults, and everything after it
//   REEF_STANDIN_HOLD_TO_DEVICE, REEF_STANDIN_HOLD_TO_HOST
//                             copies wait while there is a file of that name; one that does makes another, .waiting
// Memory that is unregistered while a copy uses it ends the process.
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

extern "C" void reef_host_launch(void (*kernel)(const void*, const void*), int blocks, int threads, int cluster,
                                 int shared_bytes, int descending, const void* args, const void* place);

#include "names.hpp"

namespace {

constexpr unsigned kUnits = UNITS;
constexpr int kOutOfMemory = 2, kInvalid = 1, kNoContext = 201, kNotFound = 500, kNotReady = 600, kFault = 700,
              kNotSupported = 801;

std::mutex guard;
std::map<void*, size_t> device_memory, host_memory, registered;
std::multiset<void*> words_to_write;
std::atomic<int> sticky{0};
std::atomic<uint64_t> launches{0};
// Copies in one direction that were queued, in order, and whether they wait.
struct Copies {
    const char* const hold;
    std::mutex guard{};
    std::condition_variable changed{};
    std::vector<size_t> queued{};
    std::multimap<const char*, size_t> in_flight{};  // by where the host's bytes are
    bool wait = false;
};
Copies copies[2] = {{"REEF_STANDIN_HOLD_TO_DEVICE"}, {"REEF_STANDIN_HOLD_TO_HOST"}};
std::atomic<uint64_t> grids_on[kUnits + 1];  // by the number of units that their stream has
thread_local bool current = false;

uint64_t setting(const char* name) {
    const char* value = std::getenv(name);
    return value ? std::strtoull(value, nullptr, 0) : 0;
}

struct Function {
    void (*entry)(const void*, const void*);
    bool grid;  // else a window kernel: one thread, no fiber
    int cluster;
};

struct Module {
    void* handle;
    std::map<std::string, Function> functions;
};

struct Launch {
    Function function;
    unsigned blocks, threads, shared_bytes;
    unsigned char args[64];
    unsigned char place[40];
    unsigned units;  // that it may use: those of the stream that it was captured or launched on
    void run() const {
        const uint64_t number = ++launches;
        if (number == setting("REEF_STANDIN_FAULT"))
            sticky = kFault;
        if (sticky)
            return;
        grids_on[units] += function.grid;
        if (function.grid)
            reef_host_launch(function.entry, static_cast<int>(blocks), static_cast<int>(threads), function.cluster,
                             static_cast<int>(shared_bytes), static_cast<int>(number % 2), args, place);
        else
            function.entry(args, place);
    }
};

using Work = std::function<void()>;

struct Stream {
    explicit Stream(unsigned of_units = kUnits) : units(of_units), thread([this] { loop(); }) {}
    ~Stream() {
        {
            std::lock_guard lock(mutex);
            ending = true;
        }
        changed.notify_all();
        thread.join();
    }
    void loop() {
        std::unique_lock lock(mutex);
        for (;;) {
            changed.wait(lock, [this] { return ending || !work.empty(); });
            if (work.empty())
                return;
            busy = true;
            Work next = std::move(work.front());
            work.pop_front();
            lock.unlock();
            if (!sticky)
                next();
            lock.lock();
            busy = false;
            if (work.empty())
                changed.notify_all();
        }
    }
    int add(Work item) {
        std::lock_guard lock(mutex);
        work.push_back(std::move(item));
        changed.notify_all();
        return sticky;
    }
    bool idle() {
        std::lock_guard lock(mutex);
        return work.empty() && !busy;
    }
    void drain() {
        std::unique_lock lock(mutex);
        changed.wait(lock, [this] { return work.empty() && !busy; });
    }
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<Work> work;
    bool busy = false, ending = false;
    std::vector<Launch>* captured = nullptr;
    const unsigned units;
    std::thread thread;
};

using Graph = std::vector<Launch>;

int usable() { return !current ? kNoContext : sticky.load(); }

int launch_kernel(Stream* stream, const Function* function, unsigned blocks, unsigned threads, unsigned shared_bytes,
                  void** arguments) {
    if (const int status = usable())
        return status;
    if (blocks == 0 || threads == 0 || threads > 1024 || blocks % static_cast<unsigned>(function->cluster) != 0)
        return kInvalid;
    Launch launch{*function, blocks, threads, shared_bytes, {}, {}, stream->units};
    std::memcpy(launch.args, arguments[0], sizeof launch.args);
    std::memcpy(launch.place, arguments[1], sizeof launch.place);
    if (stream->captured) {
        stream->captured->push_back(launch);
        return 0;
    }
    return stream->add([launch] { launch.run(); });
}

int allocate(std::map<void*, size_t>& pool, void** pointer, size_t bytes, unsigned char filling) {
    if (const int status = usable())
        return status;
    std::lock_guard lock(guard);
    size_t used = 0;
    for (const auto& [start, size] : pool)
        used += size;
    const uint64_t limit = setting("REEF_STANDIN_MEMORY");
    if (&pool == &device_memory && limit && used + bytes > limit)
        return kOutOfMemory;
    *pointer = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    std::memset(*pointer, filling, bytes);
    pool[*pointer] = bytes;
    return 0;
}

void wait_for_file(const char* setting_name) {
    const char* path = std::getenv(setting_name);
    while (path && access(path, F_OK) == 0) {
        close(open((std::string(path) + ".waiting").c_str(), O_CREAT | O_WRONLY, 0600));
        usleep(500);
    }
}

int copy(Copies& direction, void* to, const void* from, size_t bytes, Stream* stream) {
    std::lock_guard lock(direction.guard);
    direction.queued.push_back(bytes);
    const char* host = &direction == copies ? static_cast<const char*>(from) : static_cast<const char*>(to);
    const auto noted = direction.in_flight.emplace(host, bytes);
    return stream->add([=, &direction] {
        wait_for_file(direction.hold);
        std::unique_lock wait(direction.guard);
        direction.changed.wait(wait, [&] { return !direction.wait; });
        std::memcpy(to, from, bytes);
        direction.in_flight.erase(noted);
    });
}

#if defined(REEF_STANDIN_CUDA)
void must_be_idle(const void* memory, size_t bytes) {
    const auto* start = static_cast<const char*>(memory);
    for (Copies& direction : copies) {
        std::lock_guard lock(direction.guard);
        for (const auto& [host, size] : direction.in_flight) {
            if (host < start + bytes && start < host + size) {
                std::fprintf(stderr, "stand-in: memory was unregistered while a copy used it\n");
                std::abort();
            }
        }
    }
}
#endif

int release(std::map<void*, size_t>& pool, void* pointer) {
    std::lock_guard lock(guard);
    const auto found = pool.find(pointer);
    if (found == pool.end())
        return kInvalid;
    const auto word = words_to_write.lower_bound(pointer);
    if (word != words_to_write.end() && *word < static_cast<char*>(pointer) + found->second)
        sticky = kFault;
    pool.erase(found);
    std::free(pointer);
    return 0;
}

void* open_code(const void* code) {
    // The size of an ELF file: its section headers lie at the end.
    uint64_t sections;
    uint16_t size, count;
    const auto* bytes = static_cast<const unsigned char*>(code);
    std::memcpy(&sections, bytes + 40, 8);
    std::memcpy(&size, bytes + 58, 2);
    std::memcpy(&count, bytes + 60, 2);
    // Every file has a name of its own: a library that is open is found again by its name.
    char path[] = "/tmp/reef-standin-XXXXXX";
    const int file = mkstemp(path);
    const bool written = write(file, code, sections + uint64_t{size} * count) > 0;
    void* handle = written ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
    close(file);
    unlink(path);
    return handle;
}

void promote() {
    // Kernels find the runtime of the fibers here, however this library was opened.
    Dl_info info;
    if (dladdr(reinterpret_cast<void*>(&promote), &info))
        dlopen(info.dli_fname, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD);
}

}  // namespace

extern "C" {

int NAME(Init)(unsigned) {
    promote();
    return 0;
}
int NAME(DriverGetVersion)(int* version) {
    *version = 13000;
    return 0;
}
int DEVICE_COUNT(int* count) {
    *count = 1;
    return 0;
}
int NAME(DeviceGet)(int* device, int ordinal) {
    *device = ordinal;
    return ordinal == 0 ? 0 : 101;
}
int NAME(DeviceGetName)(char* name, int room, int) {
    std::strncpy(name, "stand-in", static_cast<size_t>(room));
    return 0;
}
int NAME(DeviceGetAttribute)(int* value, int attribute, int) {
    *value = attribute == UNITS_ATTRIBUTE ? UNITS : attribute == POINTERS_ATTRIBUTE ? 1 : 0;
    return 0;
}
int MEMORY_INFO(size_t* free_bytes, size_t* total) {
    std::lock_guard lock(guard);
    *total = setting("REEF_STANDIN_MEMORY") ? setting("REEF_STANDIN_MEMORY") : size_t{1} << 30;
    *free_bytes = *total;
    for (const auto& [start, size] : device_memory)
        *free_bytes -= size;
    return 0;
}
int ALLOCATE(void** pointer, size_t bytes) { return allocate(device_memory, pointer, bytes, 0xa5); }
int RELEASE(void* pointer) { return release(device_memory, pointer); }
int ALLOCATE_HOST(void** pointer, size_t bytes, unsigned) { return allocate(host_memory, pointer, bytes, 0x5a); }
int RELEASE_HOST(void* pointer) { return release(host_memory, pointer); }
int HOST_ADDRESS(void** device, void* pointer, unsigned) {
    *device = pointer;
    return usable();
}
int UPLOAD(void* to, const void* from, size_t bytes) {
    if (const int status = usable())
        return status;
    std::memcpy(to, from, bytes);
    return 0;
}
int UPLOAD_ASYNC(void* to, const void* from, size_t bytes, Stream* stream) {
    if (const int status = usable())
        return status;
    return copy(copies[0], to, from, bytes, stream);
}
int DOWNLOAD_ASYNC(void* to, const void* from, size_t bytes, Stream* stream) {
    if (const int status = usable())
        return status;
    return copy(copies[1], to, from, bytes, stream);
}
int NAME(MemsetD8Async)(void* to, unsigned char byte, size_t bytes, Stream* stream) {
    if (const int status = usable())
        return status;
    return stream->add([=] { std::memset(to, byte, bytes); });
}
int PRIORITIES(int* least, int* greatest) {
    *least = 0;
    *greatest = -5;
    return usable();
}
int NAME(StreamCreateWithPriority)(Stream** stream, unsigned, int) {
    if (const int status = usable())
        return status;
    *stream = new Stream;
    return 0;
}
int STREAM_DESTROY(Stream* stream) {
    delete stream;
    return 0;
}
int NAME(StreamQuery)(Stream* stream) {
    const int status = usable();
    return status ? status : stream->idle() ? 0 : kNotReady;
}
int NAME(StreamSynchronize)(Stream* stream) {
    stream->drain();
    return usable();
}
int NAME(ModuleLoadData)(Module** module, const void* code) {
    if (const int status = usable())
        return status;
    void* handle = open_code(code);
    if (!handle)
        return 200;
    *module = new Module{handle, {}};
    return 0;
}
int NAME(ModuleUnload)(Module* module) {
    dlclose(module->handle);
    delete module;
    return 0;
}
int NAME(ModuleGetFunction)(Function** function, Module* module, const char* name) {
    void* entry = dlsym(module->handle, name);
    if (!entry)
        return kNotFound;
    std::string plain = name;
    if (plain.ends_with("_p"))
        plain.resize(plain.size() - 2);
    const auto* cluster = static_cast<const int*>(dlsym(module->handle, (plain + "_cluster").c_str()));
    Function& made = module->functions[name];
    made = {reinterpret_cast<void (*)(const void*, const void*)>(entry), cluster != nullptr,
            cluster && *cluster ? *cluster : 1};
    *function = &made;
    return 0;
}
int STREAM_BEGIN_CAPTURE(Stream* stream, int) {
    if (stream->captured)
        return kInvalid;
    stream->captured = new Graph;
    return usable();
}
int NAME(StreamEndCapture)(Stream* stream, Graph** graph) {
    *graph = stream->captured;
    stream->captured = nullptr;
    return *graph ? 0 : kInvalid;
}
int NAME(GraphInstantiateWithFlags)(Graph** executable, Graph* graph, unsigned long long) {
    *executable = new Graph(*graph);
    return usable();
}
int NAME(GraphDestroy)(Graph* graph) {
    delete graph;
    return 0;
}
int NAME(GraphExecDestroy)(Graph* graph) {
    delete graph;
    return 0;
}
int NAME(GraphLaunch)(Graph* graph, Stream* stream) {
    if (const int status = usable())
        return status;
    return stream->add([graph, units = stream->units] {
        for (Launch launch : *graph) {
            if (GRAPHS_TAKE_THE_UNITS_OF_THEIR_STREAM)
                launch.units = units;
            launch.run();
        }
    });
}
// An event holds how much was queued on its stream: waiting is for that much to be done.
struct Event {
    std::mutex mutex;
    std::condition_variable changed;
    uint64_t recorded = 0, reached = 0;
};
int EVENT_CREATE(Event** event, unsigned) {
    *event = new Event;
    return usable();
}
int EVENT_DESTROY(Event* event) {
    delete event;
    return 0;
}
int NAME(EventRecord)(Event* event, Stream* stream) {
    if (const int status = usable())
        return status;
    std::lock_guard lock(event->mutex);
    return stream->add([event, number = ++event->recorded] {
        std::lock_guard reached(event->mutex);
        event->reached = std::max(event->reached, number);
        event->changed.notify_all();
    });
}
int NAME(StreamWaitEvent)(Stream* stream, Event* event, unsigned) {
    if (const int status = usable())
        return status;
    std::lock_guard lock(event->mutex);
    return stream->add([event, number = event->recorded] {
        std::unique_lock reached(event->mutex);
        event->changed.wait(reached, [&] { return event->reached >= number || sticky; });
    });
}
// For a kernel of a test that is to touch an address it may not.
void reef_standin_fault() { sticky = kFault; }
// How many grids ran on that many compute units: for tests.
uint64_t reef_standin_grids_on(unsigned units) { return grids_on[units]; }
// The bytes of the copies from the host, or to it, queued since the last call, in order; how many. Later ones wait or go on.
unsigned reef_standin_copies(bool to_host, size_t* bytes, unsigned room, bool wait) {
    Copies& direction = copies[to_host];
    std::lock_guard lock(direction.guard);
    const auto count = static_cast<unsigned>(direction.queued.size());
    std::copy_n(direction.queued.begin(), std::min(room, count), bytes);
    direction.queued.clear();
    direction.wait = wait;
    direction.changed.notify_all();
    return count;
}

#if defined(REEF_STANDIN_CUDA)
int cuDevicePrimaryCtxRetain(void** context, int) {
    *context = &guard;
    return 0;
}
int cuCtxSetCurrent(void* context) {
    current = context == &guard;
    return sticky;
}
int cuGetErrorName(int status, const char** name) {
    *name = status == kOutOfMemory ? "CUDA_ERROR_OUT_OF_MEMORY"
            : status == kFault     ? "CUDA_ERROR_ILLEGAL_ADDRESS"
                                   : "CUDA_ERROR";
    return 0;
}
int cuMemHostRegister_v2(void* pointer, size_t bytes, unsigned) {
    if (std::getenv("REEF_STANDIN_NO_REGISTER"))
        return kNotSupported;
    std::lock_guard lock(guard);
    return registered.emplace(pointer, bytes).second ? usable() : 712;
}
int cuMemHostUnregister(void* pointer) {
    std::lock_guard lock(guard);
    const auto found = registered.find(pointer);
    if (found == registered.end())
        return 713;
    must_be_idle(pointer, found->second);
    registered.erase(found);
    return 0;
}
// Calls that wrote one word, and several: for tests.
uint64_t reef_standin_word_writes[2];

static int write_word(Stream* stream, uint32_t* word, uint32_t value) {
    if (const int status = usable())
        return status;
    {
        std::lock_guard lock(guard);
        words_to_write.insert(word);
    }
    return stream->add([=] {
        std::lock_guard lock(guard);
        __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
        words_to_write.erase(words_to_write.find(word));
    });
}
int cuStreamWriteValue32_v2(Stream* stream, uint32_t* word, uint32_t value, unsigned) {
    reef_standin_word_writes[0]++;
    return write_word(stream, word, value);
}
struct MemoryOperation {
    int operation;
    uint32_t* address;
    uint64_t value;
    unsigned flags;
    void* alias;
    uint64_t pad;
};
int cuStreamBatchMemOp_v2(Stream* stream, unsigned count, MemoryOperation* operations, unsigned) {
    reef_standin_word_writes[1]++;
    int status = count == 0 || count > 256 ? kInvalid : 0;
    for (unsigned i = 0; i < count && status == 0; i++) {
        const MemoryOperation& each = operations[i];
        status = each.operation == 2 ? write_word(stream, each.address, static_cast<uint32_t>(each.value)) : kInvalid;
    }
    return status;
}
int cuFuncSetAttribute(Function*, int, int) { return usable(); }
struct Resource {
    int type;
    unsigned char internal[92];
    unsigned count;
    unsigned char more[44];
};
int cuDeviceGetDevResource(int, Resource* all, int type) {
    *all = {};
    all->type = type;
    all->count = kUnits;
    return std::getenv("REEF_STANDIN_NO_SPLITS") ? kNotSupported : usable();
}
int cuDevSmResourceSplitByCount(Resource* first, unsigned* groups, const Resource* all, Resource* rest, unsigned,
                                unsigned least) {
    if (*groups != 1 || least == 0 || least >= all->count)
        return kInvalid;
    *first = *rest = *all;
    first->count = least;
    rest->count = all->count - least;
    return usable();
}
int cuDevResourceGenerateDesc(void** description, Resource* resource, unsigned) {
    *description = reinterpret_cast<void*>(uintptr_t{resource->count});
    return usable();
}
int cuGreenCtxCreate(void** context, void* description, int, unsigned flags) {
    *context = description;
    return flags == 1 ? usable() : kInvalid;
}
int cuGreenCtxDestroy(void*) { return 0; }
int cuGreenCtxStreamCreate(Stream** stream, void* context, unsigned, int) {
    if (const int status = usable())
        return status;
    *stream = new Stream(static_cast<unsigned>(reinterpret_cast<uintptr_t>(context)));
    return 0;
}
struct Config {
    unsigned grid[3], block[3], shared_bytes;
    Stream* stream;
    void* attributes;
    unsigned attribute_count;
};
int cuLaunchKernelEx(const Config* config, Function* function, void** arguments, void**) {
    return launch_kernel(config->stream, function, config->grid[0], config->block[0], config->shared_bytes, arguments);
}
#else
int hipSetDevice(int) {
    current = true;
    return sticky;
}
int hipExtStreamCreateWithCUMask(Stream** stream, uint32_t words, const uint32_t* mask) {
    if (const int status = usable())
        return status;
    int units = 0;
    for (uint32_t word = 0; word < words; word++)
        units += std::popcount(mask[word]);
    *stream = new Stream(static_cast<unsigned>(units));
    return 0;
}
const char* hipGetErrorName(int status) {
    return status == kOutOfMemory ? "hipErrorOutOfMemory" : status == kFault ? "hipErrorIllegalAddress" : "hipError";
}
int hipModuleLaunchKernel(Function* function, unsigned gx, unsigned, unsigned, unsigned bx, unsigned, unsigned,
                          unsigned shared_bytes, Stream* stream, void** arguments, void**) {
    return launch_kernel(stream, function, gx, bx, shared_bytes, arguments);
}
#endif
}
