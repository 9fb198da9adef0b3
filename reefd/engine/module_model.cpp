// SPDX-License-Identifier: Apache-2.0
// Python's ModelSpec.
#include <nanobind/nanobind.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>

#include "buffers.hpp"
#include "gpu_program.hpp"
#include "model.hpp"
#include "module.hpp"
#include "operator_arguments.hpp"

namespace nb = nanobind;

namespace reef {
namespace {

template <class T, size_t n>
T choose(const std::string& value, const std::pair<const char*, T> (&choices)[n], const char* what) {
    for (const auto& [name, choice] : choices)
        if (value == name)
            return choice;
    throw ModelError(std::string("unknown ") + what + " '" + value + "'");
}

StorageKind storage_kind(const std::string& name) {
    static constexpr std::pair<const char*, StorageKind> kinds[] = {{"input", StorageKind::input},
                                                                    {"output", StorageKind::output},
                                                                    {"arena", StorageKind::arena},
                                                                    {"weight", StorageKind::weight}};
    return choose(name, kinds, "storage kind");
}

constexpr std::pair<const char*, Access> kDirections[] = {
    {"read", Access::read}, {"write", Access::write}, {"read_write", Access::read_write}};

Access access_direction(const std::string& name) { return choose(name, kDirections, "access"); }

const char* access_name(Access access) { return kDirections[static_cast<size_t>(access)].first; }

Attribute attribute(const std::string& name, nb::handle value) {
    if (nb::isinstance<nb::bool_>(value))
        return int64_t{nb::cast<bool>(value)};
    if (nb::isinstance<nb::int_>(value))
        return nb::cast<int64_t>(value);
    if (nb::isinstance<nb::float_>(value))
        return nb::cast<double>(value);
    if (nb::isinstance<nb::str>(value))
        return nb::cast<std::string>(value);
    if (nb::isinstance<nb::list>(value) || nb::isinstance<nb::tuple>(value)) {
        bool integers = true;
        for (nb::handle item : nb::cast<nb::sequence>(value))
            integers = integers && nb::isinstance<nb::int_>(item);
        if (integers)
            return nb::cast<std::vector<int64_t>>(value);
        return nb::cast<std::vector<double>>(value);
    }
    throw ModelError("attribute '" + name + "' is no number, string or list of numbers");
}

uint32_t add_storage(ModelSpec& spec, std::string name, const std::string& kind, const std::string& dtype,
                     std::vector<int64_t> shape, uint64_t offset, nb::object data, int64_t base) {
    auto add = [&](std::span<const std::byte> bytes) {
        return spec.add_storage(std::move(name), storage_kind(kind), dtype_from_name(dtype), std::move(shape), offset,
                                bytes, base);
    };
    if (data.is_none())
        return add({});
    BufferView buffer(data, false, "data");
    return add(buffer.bytes());
}

Attributes all_attributes(nb::dict attributes) {
    Attributes values;
    for (const auto& [key, value] : attributes) {
        std::string name = nb::cast<std::string>(key);
        values.emplace(name, attribute(name, value));
    }
    return values;
}

uint32_t add_kernel(ModelSpec& spec, std::string name, std::string op, std::vector<uint32_t> args,
                    const std::vector<std::string>& access, nb::dict attributes) {
    std::vector<Access> directions;
    for (const std::string& direction : access)
        directions.push_back(access_direction(direction));
    return spec.add_kernel(std::move(name), std::move(op), std::move(args), std::move(directions),
                           all_attributes(attributes));
}

nb::object arguments_of(const std::string& op, nb::dict attributes, size_t count) {
    const auto arguments = operator_arguments(op, all_attributes(attributes), count);
    if (!arguments)
        return nb::none();
    nb::list list;
    for (const OperatorArgument& argument : *arguments)
        list.append(nb::make_tuple(argument.name, access_name(argument.access), argument.in_place));
    return list;
}

}  // namespace

void bind_model(nb::module_& module) {
    nb::exception<ModelError>(module, "ModelError");
    module.def("operator_arguments", arguments_of, nb::arg("op"), nb::arg("attributes"), nb::arg("count"));
    nb::class_<ModelSpec>(module, "ModelSpec")
        .def(nb::init<std::string, uint64_t>(), nb::arg("name"), nb::arg("arena_bytes"))
        .def("add_storage", add_storage, nb::arg("name"), nb::arg("kind"), nb::arg("dtype"), nb::arg("shape"),
             nb::arg("offset") = 0, nb::arg("data") = nb::none(), nb::arg("base") = -1)
        .def("add_kernel", add_kernel, nb::arg("name"), nb::arg("op"), nb::arg("args"), nb::arg("access"),
             nb::arg("attributes"))
        .def("set_inputs", &ModelSpec::set_inputs, nb::arg("storages"))
        .def("set_outputs", &ModelSpec::set_outputs, nb::arg("storages"))
        .def(
            "set_program",
            [](ModelSpec& self, std::shared_ptr<GpuProgram> program) { self.set_program(std::move(program)); },
            nb::arg("program"));
}

}  // namespace reef
