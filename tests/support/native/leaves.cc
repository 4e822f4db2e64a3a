// What the tests drive: calls of runner/native's parts that need no bundle. A message on standard input is a number of parts,
// and each part's length and bytes (numbers are 32 bits, little-endian); the answer is one, too: "ok" or "error", then what
// was made.
#include <csignal>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "common/errors.h"
#include "diffusion/generators.h"
#include "pictures/images.h"
#include "pictures/png_file.h"
#include "inputs/conditions.h"
#include "inputs/preprocessing.h"
#include "inputs/resample.h"
#include "schedulers/schedulers.h"
#include "common/sha256.h"
#include "inputs/tokenizer.h"
#include "inputs/unicode.h"
#include "common/utf8.h"
#include "common/whole_file.h"

using namespace kandinsky;
using Parts = std::vector<std::string>;
using Json = nlohmann::json;

namespace {

template <typename T>
std::string Bytes(const std::vector<T> &values) {
  return std::string(reinterpret_cast<const char *>(values.data()), values.size() * sizeof(T));
}

std::vector<float> Floats(const std::string &bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

std::string Int(int64_t value) { return std::to_string(value); }

Image AsImage(const std::string &width, const std::string &height, const std::string &rgb) {
  return {std::stoi(width), std::stoi(height), {rgb.begin(), rgb.end()}};
}

Parts Answer(const Image &image) {
  return {Int(image.width), Int(image.height), Bytes(image.rgb), PixelsSha256(image)};
}

// name, json, max_length, pad, eos, vocab_size or "", text...: of each text ids, mask, end, truncated or "", "truncated" or "",
// or in their place "" and the error
Parts Tokenize(const Parts &in) {
  TokenizerOptions options{std::stoll(in[2]), std::stoll(in[3]), std::stoll(in[4]), {}};
  if (!in[5].empty()) options.vocab_size = std::stoll(in[5]);
  const Tokenizer tokenizer(in[0], in[1], options);
  Parts out;
  for (size_t i = 6; i < in.size(); ++i) {
    try {
      const Tokens tokens = tokenizer.Encode(in[i]);
      out.insert(out.end(), {Bytes(tokens.input_ids), Bytes(tokens.mask), Int(tokens.end_position),
                             tokens.truncated.value_or(""), tokens.truncated ? "truncated" : ""});
    } catch (const UserError &error) {
      out.insert(out.end(), {"", error.what(), "", "", ""});
    }
  }
  return out;
}

// The classes of all characters as text; their lower case, and their composition, each with a zero behind it.
Parts Unicode(const Parts &) {
  Parts out(3);
  for (int32_t code = 0; code < 0x110000; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    std::string character;
    AppendUtf8(code, character);
    out[0] += IsLetter(code) ? 'L' : IsNumber(code) ? 'N' : IsSpace(code) ? 's' : '-';
    out[1] += LowerCase(character) + '\0';
    out[2] += Composed(character) + '\0';
  }
  return out;
}

// rng, seed, count...: the tensors drawn one after the other, and those of a copy that was made before the last
Parts Draws(const Parts &in) {
  auto generator = MakeGenerator(in[0], in[1]);
  Parts out;
  for (size_t i = 2; i < in.size(); ++i) {
    const auto copy = generator->Copy();
    std::vector<float> values(std::stoul(in[i])), again(values.size());
    generator->Normal(values.data(), values.size());
    copy->Normal(again.data(), again.size());
    if (std::memcmp(values.data(), again.data(), values.size() * sizeof(float)) != 0) throw std::logic_error("a copy differs");
    out.push_back(Bytes(values));
  }
  return out;
}

std::unique_ptr<Scheduler> Made(const std::string &name, const std::string &config) {
  return name.empty() ? MakeScheduler(Json::parse(config)) : MakeScheduler(name, Json::parse(config));
}

// name or "", config: description, learned variance or ""
Parts Describe(const Parts &in) {
  const auto scheduler = Made(in[0], in[1]);
  return {scheduler->Describe().dump(), scheduler->learned_variance() ? "1" : ""};
}

// name or "", config, steps, rows, channels, size, start, sample, model outputs, noises: timesteps, init_noise_sigma, how many
// noises were taken, then of each step the scaled input and the sample; last the sample noised for the start
Parts Run(const Parts &in) {
  const auto scheduler = Made(in[0], in[1]);
  const auto schedule = scheduler->Plan(std::stoll(in[2]));
  const Shape shape{std::stoul(in[3]), std::stoul(in[4]), std::stoul(in[5])};
  std::vector<float> sample = Floats(in[7]);
  const std::vector<float> outputs = Floats(in[8]), noises = Floats(in[9]);
  const size_t start = std::stoul(in[6]), width = shape.count() * (scheduler->learned_variance() ? 2 : 1);
  size_t taken = 0, expected = 0;
  const Draw draw = [&](float *out, size_t count) { std::memcpy(out, &noises.at(count * taken++), count * sizeof(float)); };
  Parts out{Bytes(schedule->timesteps), Bytes(std::vector<double>{schedule->init_noise_sigma}), ""};
  SolverState state;
  for (size_t i = start; i < schedule->timesteps.size(); ++i) {
    out.push_back(Bytes(schedule->ScaleModelInput(sample, i)));
    const auto begin = outputs.begin() + static_cast<ptrdiff_t>(i * width);
    expected += schedule->TakesNoise(i);
    schedule->Step({begin, begin + static_cast<ptrdiff_t>(width)}, i, shape, sample, draw, state);
    out.push_back(Bytes(sample));
  }
  if (taken != expected) throw std::logic_error("TakesNoise and Step differ");
  out[2] = Int(static_cast<int64_t>(taken));
  out.push_back(Bytes(schedule->Noised(Floats(in[7]), {noises.begin(), noises.begin() + shape.count()}, start)));
  return out;
}

Parts Call(const std::string &command, const Parts &in) {
  if (command == "tokenize") return Tokenize(in);
  if (command == "unicode") return Unicode(in);
  if (command == "draw") return Draws(in);
  if (command == "describe") return Describe(in);
  if (command == "run") return Run(in);
  if (command == "read") return Answer(ReadImage(in[0]));
  if (command == "decode") return Answer(DecodeImage(in[0], in[1]));
  if (command == "resize") {
    return Answer(Resized(AsImage(in[0], in[1], in[2]), std::stoi(in[3]), std::stoi(in[4]), Filter(std::stoi(in[5]))));
  }
  if (command == "conditions") {  // width, height, rgb, height and width of the values, height and width of latents
    const Image image = AsImage(in[0], in[1], in[2]);
    const Size size{std::stoi(in[3]), std::stoi(in[4])}, latents{std::stoi(in[5]), std::stoi(in[6])};
    const Mask mask = MaskOf(image, size);
    return {Bytes(StartValues(image, size)), Bytes(HintValues(image, size)), Bytes(mask), Bytes(KeptLatents(mask, size, latents))};
  }
  if (command == "pixels") {
    const auto pixels = ImageProcessor(Json::parse(in[0]))(AsImage(in[1], in[2], in[3]));
    return {Int(pixels.height), Int(pixels.width), Bytes(pixels.values)};
  }
  if (command == "write") {  // path, width, height, rgb, keyword, text, ...
    TextChunks texts;
    for (size_t i = 4; i + 1 < in.size(); i += 2) texts.emplace_back(in[i], in[i + 1]);
    WritePng(in[0], AsImage(in[1], in[2], in[3]), texts);
    return {};
  }
  if (command == "text") {
    const auto text = ReadPngText(in[0], in[1]);
    return text ? Parts{*text} : Parts{};
  }
  if (command == "whole") return WriteWhole(in[0], in[1].data(), in[1].size()), Parts{};
  if (command == "sha256") {
    Sha256 sum;
    for (const std::string &part : in) sum.Update(part.data(), part.size());
    return {sum.HexDigest()};
  }
  if (command == "plain") {  // the sum as a processor without instructions for it makes it
    return {Sha256Hex(in[0].data(), in[0].size(), true)};
  }
  if (command == "ignore") return std::signal(SIGXFSZ, SIG_IGN), Parts{};
  if (command == "line") return {OneLine(in[0]), Quoted(in[0])};
  throw std::logic_error("unknown command " + command);
}

bool Read(void *out, size_t size) { return std::fread(out, 1, size, stdin) == size; }

void Send(const Parts &parts) {
  const auto number = [](size_t value) {
    const auto bits = static_cast<uint32_t>(value);
    std::fwrite(&bits, 4, 1, stdout);
  };
  number(parts.size());
  for (const std::string &part : parts) {
    number(part.size());
    std::fwrite(part.data(), 1, part.size(), stdout);
  }
  std::fflush(stdout);
}

}  // namespace

int main() {
  uint32_t count, length;
  while (Read(&count, 4)) {
    Parts parts(count);
    for (std::string &part : parts) {
      if (!Read(&length, 4)) return 1;
      part.resize(length);
      if (!Read(part.data(), length)) return 1;
    }
    const std::string command = parts[0];
    parts.erase(parts.begin());
    try {
      Parts answer = Call(command, parts);
      answer.insert(answer.begin(), "ok");
      Send(answer);
    } catch (const UserError &error) {
      Send({"error", error.what()});
    } catch (const std::domain_error &error) {
      Send({"domain", error.what()});
    }
  }
}
