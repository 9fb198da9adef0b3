// SPDX-License-Identifier: Apache-2.0
#include "cpu_place.hpp"

#include <sched.h>

#include <cstddef>
#include <memory>

namespace reef {

std::vector<int> allowed_cpus() {
    // A machine may have more CPUs than a cpu_set_t holds.
    for (size_t count = 1024; count <= 1u << 16; count *= 2) {
        std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(CPU_ALLOC(count), [](cpu_set_t* s) { CPU_FREE(s); });
        if (!set || sched_getaffinity(0, CPU_ALLOC_SIZE(count), set.get()) != 0)
            continue;
        std::vector<int> cpus;
        for (size_t cpu = 0; cpu < count; cpu++)
            if (CPU_ISSET_S(cpu, CPU_ALLOC_SIZE(count), set.get()))
                cpus.push_back(static_cast<int>(cpu));
        if (!cpus.empty())
            return cpus;
    }
    return {-1};
}

void pin_to(int cpu) {
    if (cpu < 0)
        return;
    const size_t bytes = CPU_ALLOC_SIZE(cpu + 1);
    std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(CPU_ALLOC(cpu + 1), [](cpu_set_t* s) { CPU_FREE(s); });
    if (!set)
        return;
    CPU_ZERO_S(bytes, set.get());
    CPU_SET_S(static_cast<size_t>(cpu), bytes, set.get());
    sched_setaffinity(0, bytes, set.get());
}

}  // namespace reef
