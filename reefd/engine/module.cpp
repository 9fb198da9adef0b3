// SPDX-License-Identifier: Apache-2.0
// The Python module `reefd._engine` (reefd/_engine.pyi).
#include "module.hpp"

NB_MODULE(_engine, module) {
    reef::bind_model(module);
    reef::bind_device(module);
    reef::bind_gpu(module);
    reef::bind_engine(module);
}
