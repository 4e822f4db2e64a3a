// The driver of fuzz.h.
#include <dirent.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <sstream>
#include <vector>

#include "fuzz.h"

extern "C" void __sanitizer_set_death_callback(void (*callback)());

namespace {

constexpr size_t kMostBytes = 1 << 17;
constexpr unsigned kMostSeconds = 30;  // of one input
constexpr size_t kPlaces = 1 << 16;

bool recording = false;
uintptr_t before = 0;
uint8_t hits[kPlaces], seen[kPlaces];  // how often a step from one place of the code to another was made; in steps of counts
std::string current, finding_path;

// Calls of the system alone: it runs in a signal's handler, too.
void Keep() {
  std::FILE *file = std::fopen(finding_path.c_str(), "wb");
  if (file == nullptr) return;
  std::fwrite(current.data(), 1, current.size(), file);
  std::fclose(file);
}

void TooLong(int) {
  Keep();
  const char said[] = "finding: an input takes too long\n";
  if (write(2, said, sizeof said - 1) < 0) _exit(4);
  _exit(3);
}

// What JSON, regular expressions and picture files are made of.
const char *const kWords[] = {"\"",   "{",    "}",     "[",       "]",      ":",     ",",      "null",  "true",   "-1",   "1e308",
                              "0",    "1e-9", "NaN",   "18446744073709551615", "9223372036854775807", "-9223372036854775808", "2147483648",
                              "\\u0000", "\\ud800", "\\", "|",  "[^",     "+",     "?",      "\\p{L}", "\\s+",  "</w>", "<|endoftext|>",
                              "IHDR", "IDAT", "PLTE",  "tRNS",  "eXIf",   "iTXt",  "zTXt",   "IEND",  "Exif",   "II*",  "MM", "\xff\xd8",
                              "\xff\xda", "\xff\xe1", "\xff\xc4", "\xff\xdb", "\xc3\xa9", "\xe7\x8c\xab", "\xf0\x9f\x99\x82", "\xcc\x81", " "};

class Mutator {
 public:
  Mutator(const std::vector<std::string> &corpus, unsigned seed) : corpus_(corpus), random_(seed) {}

  std::string Make() {
    std::string input = Any();
    for (size_t count = 1 + Below(Below(4) == 0 ? 12 : 3); count > 0; --count) Change(input);
    if (input.size() > kMostBytes) input.resize(kMostBytes);
    return input;
  }

 private:
  size_t Below(size_t count) { return count == 0 ? 0 : random_() % count; }
  const std::string &Any() { return corpus_[Below(4) == 0 ? Below(corpus_.size()) : corpus_.size() - 1 - Below(corpus_.size()) / 2]; }

  void Change(std::string &input) {
    const size_t at = Below(input.size() + 1), count = 1 + Below(Below(2) == 0 ? 4 : 64);
    switch (Below(9)) {
      case 0:
        if (at < input.size()) input[at] = static_cast<char>(input[at] ^ (1 << Below(8)));
        break;
      case 1:
        if (at < input.size()) input[at] = static_cast<char>(random_());
        break;
      case 2:
        input.erase(std::min(at, input.size()), count);
        break;
      case 3:
        input.insert(at, input.substr(Below(input.size()), count));
        break;
      case 4:
        input.insert(at, kWords[Below(std::size(kWords))]);
        break;
      case 5: {
        const std::string word = kWords[Below(std::size(kWords))];
        input.replace(at, word.size(), word);
        break;
      }
      case 6: {  // the rest of another input
        const std::string &other = Any();
        input = input.substr(0, at) + other.substr(Below(other.size() + 1));
        break;
      }
      case 7: {  // a number of other digits
        const size_t digit = input.find_first_of("0123456789", at);
        if (digit == std::string::npos) break;
        const size_t end = input.find_first_not_of("0123456789.", digit);
        input.replace(digit, end == std::string::npos ? std::string::npos : end - digit, std::to_string(random_() >> Below(32)));
        break;
      }
      default:
        if (at < input.size()) input[at] = static_cast<char>(Below(2) ? 0 : 0xff);
    }
  }

  const std::vector<std::string> &corpus_;
  std::mt19937 random_;
};

std::vector<std::string> ReadFolder(const std::string &folder) {
  std::vector<std::string> files;
  DIR *listing = opendir(folder.c_str());
  while (const dirent *entry = listing == nullptr ? nullptr : readdir(listing)) {
    if (entry->d_name[0] == '.') continue;
    std::ifstream file(folder + "/" + entry->d_name, std::ios::binary);
    std::ostringstream content;
    content << file.rdbuf();
    files.push_back(content.str());
  }
  if (listing != nullptr) closedir(listing);
  return files;
}

// Whether an input made a step that none before had, or had so often.
bool IsNew() {
  bool found = false;
  for (size_t i = 0; i < kPlaces; ++i) {
    if (hits[i] == 0) continue;
    const auto bit = static_cast<uint8_t>(hits[i] < 4 ? 1 << (hits[i] - 1) : hits[i] < 8 ? 8 : hits[i] < 32 ? 16 : 32);
    found = found || (seen[i] & bit) == 0;
    seen[i] |= bit;
  }
  return found;
}

}  // namespace

extern "C" __attribute__((no_sanitize_coverage)) void __sanitizer_cov_trace_pc() {
  if (!recording) return;
  const auto here = reinterpret_cast<uintptr_t>(__builtin_return_address(0));
  uint8_t &hit = hits[(here ^ before >> 1) % kPlaces];
  if (hit < 255) ++hit;
  before = here;
}

int Fuzz(const Target &target, const Repair &repair, const std::string &seeds, double seconds, unsigned seed,
         const std::string &finding) {
  using Clock = std::chrono::steady_clock;
  finding_path = finding;
  __sanitizer_set_death_callback(Keep);
  std::signal(SIGALRM, TooLong);
  std::vector<std::string> corpus = ReadFolder(seeds);
  if (corpus.empty()) corpus.emplace_back();
  Mutator mutator(corpus, seed);
  const size_t given = corpus.size();
  size_t executions = 0, refused = 0;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  while (executions < given || Clock::now() < end) {
    current = executions < given ? corpus[executions] : mutator.Make();
    if (executions >= given) repair(current);
    std::memset(hits, 0, sizeof hits);
    before = 0;
    alarm(kMostSeconds);
    bool taken = false;
    try {
      recording = true;
      taken = target(current);
      recording = false;
    } catch (const std::exception &error) {
      recording = false;
      Keep();
      std::fprintf(stderr, "finding: an exception: %s\n", error.what());
      return 3;
    }
    alarm(0);
    ++executions;
    refused += !taken;
    if (IsNew() && executions > given) corpus.push_back(current);
  }
  std::printf("%zu executions, %zu refused, %zu inputs with new coverage\n", executions, refused, corpus.size() - given);
  return 0;
}
