// What this machine, and the control groups that this process is in, leave to it; amounts of memory as text.

#ifndef KANDINSKY_MINDIR_MACHINE_H
#define KANDINSKY_MINDIR_MACHINE_H

#include <cstdint>
#include <optional>
#include <string>

namespace kandinsky {

// `threads`, or one for each CPU that this process may use: the least of those that it may run on, of its control groups'
// time and of $OMP_NUM_THREADS (runner/common/control_groups.py).
int ThreadCount(std::optional<int64_t> threads);

// The machine's architecture and vector instructions, as packed weights are made for (runner/bundle/packed.py).
std::string Processor();

// Bytes that can be had without swapping: of the machine, and of the control groups that this process is in.
int64_t AvailableMemory();

// Bytes that are this process's alone, and those of it and its descendants, files in memory once each.
int64_t PrivateMemory();
int64_t MemoryInUse();

std::string MemoryText(double bytes);  // "7.75 GB", "140.2 MB"

// A budget in bytes: "12GB", "11.5 GiB", "800M", "1000". UserError for anything else.
int64_t MemoryOf(const std::string &text, const std::string &name);

}  // namespace kandinsky

#endif
