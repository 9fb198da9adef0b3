// SPDX-License-Identifier: Apache-2.0
#include "operator_arguments.hpp"

#include <sstream>

namespace reef {
namespace {

struct Declaration {
    std::string_view op;
    const char* arguments;
};
constexpr Declaration kDeclarations[] = {
#define OPERATOR(name, arguments) {#name, arguments},
#include <operators.inc>
#undef OPERATOR
};

bool says(const Attributes& attributes, const char* name, std::string_view value) {
    auto found = attributes.find(std::string_view(name));
    const std::string* word = found == attributes.end() ? nullptr : std::get_if<std::string>(&found->second);
    return word && *word == value;
}

bool is_there(const std::string& name, const Attributes& attributes) {
    auto found = attributes.find(name);
    if (found != attributes.end())
        if (const int64_t* number = std::get_if<int64_t>(&found->second))
            return *number != 0;
    return says(attributes, "activation", name);
}

bool take_suffix(std::string& word, std::string_view suffix) {
    if (!word.ends_with(suffix))
        return false;
    word.resize(word.size() - suffix.size());
    return true;
}

}  // namespace

std::optional<std::vector<OperatorArgument>> operator_arguments(std::string_view op, const Attributes& attributes,
                                                                size_t count) {
    const Declaration* declared = nullptr;
    for (const Declaration& entry : kDeclarations)
        if (entry.op == op)
            declared = &entry;
    if (!declared)
        return std::nullopt;
    std::vector<OperatorArgument> arguments;
    std::optional<size_t> many;  // where those of which there may be any number belong
    Access access = Access::read;
    std::istringstream words(declared->arguments);
    for (std::string word; words >> word;) {
        if (word == "->") {
            access = Access::write;
            continue;
        }
        const bool in_place = take_suffix(word, "=") && !says(attributes, "output_layout", "nchw");
        if (take_suffix(word, "?") && !is_there(word, attributes))
            continue;
        if (take_suffix(word, "..."))
            many = arguments.size();
        arguments.push_back({word, access, in_place});
    }
    if (many && count + 1 >= arguments.size()) {
        const size_t repeats = count + 1 - arguments.size();
        const auto place = arguments.begin() + static_cast<std::ptrdiff_t>(*many);
        const OperatorArgument repeated = *place;
        arguments.insert(arguments.erase(place), repeats, repeated);
    }
    if (arguments.size() != count)
        throw ModelError("has " + std::to_string(count) + " arguments, expected " + std::to_string(arguments.size()));
    return arguments;
}

}  // namespace reef
