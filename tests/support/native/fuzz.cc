// Fuzzes a part of the C++ library: fuzz PART SEEDS SECONDS SEED FINDING. PART is a name of the table at the end.
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "common/errors.h"
#include "fuzz.h"
#include "diffusion/generators.h"
#include "pictures/images.h"
#include "bundle/manifest.h"
#include "pictures/png_file.h"
#include "inputs/preprocessing.h"
#include "pipelines/request.h"
#include "schedulers/schedulers.h"
#include "common/sha256.h"
#include "inputs/tokenizer.h"

using namespace kandinsky;

namespace {

// What a bug would break, but no sanitizer sees.
void Require(bool condition, const char *what) {
  if (!condition) throw std::logic_error(what);
}

const TokenizerOptions kOptions{77, 0, 2, {}};

void CheckTokens(const Tokens &tokens) {
  Require(tokens.input_ids.size() == 77 && tokens.mask.size() == 77, "another number of tokens");
  Require(tokens.end_position >= 0 && tokens.end_position <= 77, "an end outside the text");
}

bool TokenizerFile(const std::string &input) {
  const Tokenizer tokenizer("tokenizer.json", input, kOptions);
  for (const char *text : {"", "a photo of the cat's 12 dogs!", "<|startoftext|> na\xc3\xafve \xe7\x8c\xab", "don't  stop"}) {
    CheckTokens(tokenizer.Encode(text));
  }
  return true;
}

// A fixed tokenizer, from $FUZZ_TOKENIZER, and any text.
bool TokenizedText(const std::string &input) {
  static const Tokenizer tokenizer = [] {
    std::string json;
    std::FILE *file = std::fopen(std::getenv("FUZZ_TOKENIZER"), "rb");
    for (int c; (c = std::fgetc(file)) != EOF;) json += static_cast<char>(c);
    std::fclose(file);
    return Tokenizer("tokenizer.json", json, {77, 1913, 1913, 1914});
  }();
  CheckTokens(tokenizer.Encode(input));
  return true;
}

// JSON that does not parse is not the target's.
template <typename Act>
bool WithJson(const std::string &input, const Act &act) {
  const nlohmann::json json = nlohmann::json::parse(input, nullptr, false);
  if (json.is_discarded()) return false;
  act(json);
  return true;
}

bool SchedulerConfiguration(const std::string &input) {
  return WithJson(input, [](const nlohmann::json &config) {
    if (config.is_object() && config.contains("trained_betas") && config["trained_betas"].size() > 5000) return;
    const auto scheduler = MakeScheduler(config);
    MakeScheduler(nlohmann::json::parse(scheduler->Describe().dump()));
    const auto schedule = scheduler->Plan(4);
    const Shape shape{2, 2, 3};
    SolverState state;
    std::vector<float> sample(shape.count(), 0.5f), output(shape.count() * (scheduler->learned_variance() ? 2 : 1), 0.1f);
    const Draw draw = [](float *out, size_t count) { std::fill_n(out, count, 0.3f); };
    for (size_t i = 0; i < schedule->timesteps.size(); ++i) {
      schedule->ScaleModelInput(sample, i);
      try {
        schedule->Step(output, i, shape, sample, draw, state);
      } catch (const std::domain_error &) {
        return;
      }
    }
  });
}

bool ProcessorConfiguration(const std::string &input) {
  return WithJson(input, [](const nlohmann::json &config) {
    const ImageProcessor processor(config);
    const auto pixels = processor({5, 4, std::vector<uint8_t>(60, 7)});
    Require(pixels.values.size() == size_t{3} * pixels.height * pixels.width, "another number of pixels");
  });
}

bool Picture(const std::string &input) {
  const Image image = DecodeImage(input, "picture");
  Require(image.rgb.size() == size_t{3} * image.width * image.height, "another number of pixels");
  return true;
}

bool PngText(const std::string &input) {
  static const int file = memfd_create("input", 0);
  static const std::string path = "/proc/self/fd/" + std::to_string(file);
  Require(ftruncate(file, 0) == 0 && pwrite(file, input.data(), input.size(), 0) == static_cast<ssize_t>(input.size()), "no file");
  const auto text = ReadPngText(path, "kandinsky-mindir");
  return text.has_value();
}

bool Seed(const std::string &input) {
  float values[20];
  for (const char *rng : {"torch", "numpy-legacy", "numpy"}) MakeGenerator(rng, input)->Normal(values, 20);
  return true;
}

bool Line(const std::string &input) {
  Require(OneLine(input).find('\n') == std::string::npos, "more than one line");
  return !Quoted(input).empty();
}

bool RequestText(const std::string &input) {
  const Request request = Request::Parse(input);
  const nlohmann::json again = request.ToJson();
  Require(Request::Of(again).ToJson() == again, "a request that is not read as it was written");
  Require(Request::Of(request.Alone(request.Count() - 1).ToJson()).Count() == 1, "a request for one picture that makes another number");
  return true;
}

bool ManifestText(const std::string &input) {
  const Manifest manifest = Manifest::Parse(input, "manifest.json");
  Require(!manifest.sizes.empty(), "no size");
  return true;
}

void Nothing(std::string &) {}

// The sums of a PNG's chunks, but for one in eight.
void RepairPng(std::string &input) {
  for (size_t at = 8; input.size() >= 12 && at <= input.size() - 12;) {
    const auto *bytes = reinterpret_cast<const unsigned char *>(input.data()) + at;
    const size_t length = size_t{bytes[0]} << 24 | size_t{bytes[1]} << 16 | size_t{bytes[2]} << 8 | bytes[3];
    if (length > input.size() - at - 12) return;
    const uLong sum = crc32(0, bytes + 4, static_cast<uInt>(length + 4));
    if (sum % 8 != 0) {
      for (int i = 0; i < 4; ++i) input[at + 8 + length + i] = static_cast<char>(sum >> (24 - 8 * i));
    }
    at += 12 + length;
  }
}

void RepairSeal(std::string &input) {
  const std::string head = "\"seal\": \"";
  const size_t at = input.find(head);
  if (at == std::string::npos || input.size() < at + head.size() + 64) return;
  input.replace(at + head.size(), 64, std::string(64, '0'));
  input.replace(at + head.size(), 64, Sha256Hex(input.data(), input.size()));
}

const std::map<std::string, std::pair<Target, Repair>> kParts = {
    {"tokenizer", {TokenizerFile, Nothing}}, {"text", {TokenizedText, Nothing}},
    {"scheduler", {SchedulerConfiguration, Nothing}}, {"processor", {ProcessorConfiguration, Nothing}},
    {"png", {Picture, RepairPng}}, {"jpeg", {Picture, Nothing}}, {"png_text", {PngText, RepairPng}}, {"seed", {Seed, Nothing}},
    {"line", {Line, Nothing}}, {"request", {RequestText, Nothing}}, {"manifest", {ManifestText, RepairSeal}},
};

}  // namespace

int main(int, char **argv) {
  const auto &[target, repair] = kParts.at(argv[1]);
  const Target refusing = [&target = target](const std::string &input) {
    try {
      return target(input);
    } catch (const UserError &error) {
      Require(error.what()[0] != '\0' && std::strchr(error.what(), '\n') == nullptr, "an error that is not one line");
      return false;
    }
  };
  return Fuzz(refusing, repair, argv[2], std::atof(argv[3]), static_cast<unsigned>(std::atoi(argv[4])), argv[5]);
}
