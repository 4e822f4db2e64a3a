// A fuzzer by mutation and coverage, for sources that g++ compiled with -fsanitize-coverage=trace-pc.
#pragma once

#include <functional>
#include <string>

// Does what is tested with an input. true: it was taken; false: it was refused. Anything else is a finding: an exception, a
// sanitizer's report, a signal, or an input that takes longer than half a minute.
using Target = std::function<bool(const std::string &input)>;
// Makes a mutated input whole again, such as sums in it; may do nothing.
using Repair = std::function<void(std::string &input)>;

// Runs a target for `seconds` on what it makes of the files in the folder `seeds`. Prints how many inputs were run, how many
// of them were refused, and how many reached code that none before had. An input with a finding lies in the file `finding`.
int Fuzz(const Target &target, const Repair &repair, const std::string &seeds, double seconds, unsigned seed,
         const std::string &finding);
