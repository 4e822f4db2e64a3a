#include "bundle/manifest.h"

#include "bundle/stored.h"

#include <algorithm>
#include <sstream>

#include "common/errors.h"
#include "common/fields.h"
#include "common/sha256.h"

namespace kandinsky {

namespace {

constexpr int64_t kFormat = 4, kStoredFormat = 5, kMergedFormat = 6;
constexpr int64_t kLargestSide = int64_t{1} << 24, kMostElements = int64_t{1} << 36;
const std::string kDamaged = std::string(": it is damaged; ") + kExportAgain;

Size ReadSize(const Field &field) {
  if (field.Count() != 2) {
    field.Refuse("expected (height, width)");
  }
  return {field.At(0).Integer(1, kLargestSide), field.At(1).Integer(1, kLargestSide)};
}

std::vector<TensorInfo> ReadTensors(const Field &field) {
  std::vector<TensorInfo> tensors;
  for (size_t i = 0; i < field.Count(); ++i) {
    TensorInfo tensor{field.At(i)["name"].Text(), {}, field.At(i)["dtype"].Text()};
    const Field shape = field.At(i)["shape"];
    double elements = 1;
    for (size_t axis = 0; axis < shape.Count(); ++axis) {
      tensor.shape.push_back(shape.At(axis).Integer(1, kLargestSide));
      elements *= static_cast<double>(tensor.shape.back());
    }
    if (elements > static_cast<double>(kMostElements)) {
      shape.Refuse("it is more than any tensor has");
    }
    if (tensor.dtype != "float32" && tensor.dtype != "int32") {
      field.At(i)["dtype"].Refuse("invalid enum value " + Shortened(tensor.dtype));
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

GraphInfo ReadGraph(const Field &field) {
  GraphInfo graph;
  graph.name = field["name"].Text();
  const auto inside = [&field](const char *name) {
    return Inside(field[name].Text(), field.where() + "." + name, "do not use this bundle");
  };
  graph.part = inside("part");
  graph.mindir = inside("mindir");
  inside("lite");
  graph.batch = field["batch"].Integer(1, kLargestSide);
  if (!field["size"].json().is_null()) {
    graph.size = ReadSize(field["size"]);
  }
  for (const auto &path : field["ms"].Texts()) {
    graph.ms.push_back(Inside(path, field.where() + ".ms", "do not use this bundle"));
  }
  graph.inputs = ReadTensors(field["inputs"]);
  graph.outputs = ReadTensors(field["outputs"]);
  return graph;
}

void CheckTimeProj(const Field &field) {
  field["flip_sin_to_cos"].Flag();
  field["freq_shift"].Number(-kLargestSide, kLargestSide);
  if (field.Object().size() != 2) {
    field.Refuse("object contains an unknown field");
  }
}

void CheckDecoding(const Field &defaults) {
  defaults["height"].Integer(1, kLargestSide);
  defaults["width"].Integer(1, kLargestSide);
  defaults["scheduler"].Text();
}

// What this program reads of the other sections. They stay as they are.
void CheckSections(const Field &file) {
  const Field settings = file["settings"], schedulers = file["schedulers"], tokenizer = file["tokenizer"];
  settings["movq_scale_factor"].Integer(1, kLargestSide);
  CheckTimeProj(settings["prior_time_proj"]);
  CheckTimeProj(settings["unet_time_proj"]);
  schedulers["prior"].Object();
  schedulers["decoder"].Object();
  tokenizer["max_length"].Integer(1, kLargestSide);
  tokenizer["pad_token_id"].Integer(0, kLargestSide);
  tokenizer["eos_token_id"].Integer(0, kLargestSide);
  if (tokenizer.Has("vocab_size")) {
    tokenizer["vocab_size"].Integer(1, kLargestSide);
  }
  std::vector<const char *> kinds{"prior", "decoder"};
  for (const auto &[kind, time_proj] : {std::pair{"inpaint", "inpaint_unet_time_proj"}, {"controlnet", "controlnet_unet_time_proj"}}) {
    if (schedulers.Has(kind)) {
      schedulers[kind].Object();
      CheckTimeProj(settings[time_proj]);
      kinds.push_back(kind);
    }
  }
  for (const char *kind : kinds) {
    const Field defaults = file["defaults"][kind];
    defaults["num_inference_steps"].Integer(1, kLargestSide);
    defaults["guidance_scale"].Number(-kLargestSide, kLargestSide);
    if (kind != kinds.front()) {
      CheckDecoding(defaults);
    }
  }
  if (file.Has("image_processor")) {
    file["image_processor"].Object();
  }
  for (const char *name : {"source", "versions"}) {
    if (file.Has(name)) {
      for (const auto &[key, value] : file[name].Object().items()) {
        file[name][key.c_str()].Text();
      }
    }
  }
}

// The archive that a MindIR file lies in.
std::string ArchiveOf(const std::string &path) {
  const size_t slash = path.rfind('/');
  return (slash == std::string::npos ? "" : path.substr(0, slash + 1)) + "mindir.zip";
}

std::string SealText(const std::string &sha256) { return "\"seal\": \"" + sha256 + "\""; }

bool IsSha256(const std::string &text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

}  // namespace

std::string SizeText(const Size &size) { return std::to_string(size.first) + "x" + std::to_string(size.second); }

int64_t Elements(const Dimensions &shape) {
  int64_t count = 1;
  for (const auto side : shape) {
    count *= side;
  }
  return count;
}

std::string TensorInfo::Describe() const {
  std::ostringstream text;
  text << name << ' ' << dtype << ' ';
  for (size_t i = 0; i < shape.size(); ++i) {
    text << (i == 0 ? "" : "x") << shape[i];
  }
  return text.str();
}

bool TensorInfo::operator==(const TensorInfo &other) const {
  return name == other.name && shape == other.shape && dtype == other.dtype;
}

std::string GraphInfo::Title() const {
  return name + " batch " + std::to_string(batch) + (size ? " " + SizeText(*size) : "");
}

const TensorInfo &GraphInfo::Input(const std::string &input) const {
  for (const auto &tensor : inputs) {
    if (tensor.name == input) {
      return tensor;
    }
  }
  throw UserError(Title() + " has no input " + input + ": " + kExportAgain);
}

Manifest Manifest::Parse(const std::string &text, const std::string &where) {
  const Json data = ParseJson(text, where, kExportAgain);
  const Field file(data, where, kDamaged);
  const int64_t format = file["format"].Integer(INT64_MIN, INT64_MAX);
  if (format < kFormat || format > kMergedFormat) {
    throw UserError(where + " has format " + std::to_string(format) + ", this version reads formats " +
                    std::to_string(kFormat) + " to " + std::to_string(kMergedFormat) +
                    ": use a matching version of kandinsky-mindir or " + kExportAgain);
  }
  if (!IsSealed(text, file["seal"].Text())) {
    throw UserError(where + " is not as export wrote it: it is damaged, or was edited; " + kExportAgain);
  }
  Manifest manifest;
  const Field sizes = file["sizes"], graphs = file["graphs"];
  for (size_t i = 0; i < sizes.Count(); ++i) {
    manifest.sizes.push_back(ReadSize(sizes.At(i)));
  }
  if (manifest.sizes.empty()) {
    sizes.Refuse("expected at least one");
  }
  CheckSections(file);
  manifest.files = ReadFiles(file["files"], "do not use this bundle");
  for (size_t i = 0; i < graphs.Count(); ++i) {
    manifest.graphs.push_back(ReadGraph(graphs.At(i)));
    const GraphInfo &graph = manifest.graphs.back();
    const bool stored = format >= kStoredFormat && manifest.files.count(graph.part + "/" + kStored) != 0;
    std::vector<std::string> uses{ArchiveOf(graph.mindir), ArchiveOf(graphs.At(i)["lite"].Text()),
                                  graph.part + "/" + (stored ? kStored : kWeights), graph.part + "/" + kIndex};
    uses.insert(uses.end(), graph.ms.begin(), graph.ms.end());
    for (const auto &path : uses) {
      if (manifest.files.count(path) == 0) {
        throw UserError(where + ": graph " + graph.name + " uses " + path + ", which files does not list; export again");
      }
    }
  }
  for (const char *path : {"constants.npz", "tokenizer.json"}) {
    if (manifest.files.count(path) == 0) {
      throw UserError(where + ": files does not list " + path + kDamaged);
    }
  }
  manifest.settings = data["settings"];
  manifest.schedulers = data["schedulers"];
  manifest.tokenizer = data["tokenizer"];
  manifest.defaults = data["defaults"];
  manifest.image_processor = file.Has("image_processor") ? data["image_processor"] : Json(nullptr);
  return manifest;
}

bool Manifest::Has(const std::string &name) const {
  return std::any_of(graphs.begin(), graphs.end(), [&name](const GraphInfo &graph) { return graph.name == name; });
}

const GraphInfo &Manifest::Find(const std::string &name, int64_t batch, const std::optional<Size> &size) const {
  if (!Has(name)) {
    throw UserError("this bundle has no " + name + ": export it again with that part");
  }
  for (const auto &graph : graphs) {
    if (graph.name == name && graph.batch == batch && graph.size == size) {
      return graph;
    }
  }
  if (size && std::find(sizes.begin(), sizes.end(), *size) == sizes.end()) {
    std::string known;
    for (const auto &other : sizes) {
      known += (known.empty() ? "" : ", ") + SizeText(other);
    }
    throw UserError("this bundle has no size " + SizeText(*size) + " (it has " + known +
                    "): choose one of them or export it");
  }
  throw UserError("this bundle has no " + name + " for batch " + std::to_string(batch) + ": export it again");
}

bool IsSealed(const std::string &text, const std::string &seal) {
  if (seal.empty()) {
    return false;
  }
  const std::string sealed = SealText(seal), zeros = SealText(std::string(64, '0'));
  std::string unsealed;
  size_t start = 0;
  for (size_t found; (found = text.find(sealed, start)) != std::string::npos; start = found + sealed.size()) {
    unsealed.append(text, start, found - start).append(zeros);
  }
  unsealed.append(text, start, std::string::npos);
  return Sha256Hex(unsealed.data(), unsealed.size()) == seal;
}

std::string Inside(const std::string &path, const std::string &where, const std::string &advice) {
  std::istringstream parts(path);
  bool named = false, leaves = path.empty() || path[0] == '/' || path.find('\\') != std::string::npos ||
                               path.find('\0') != std::string::npos;
  for (std::string part; std::getline(parts, part, '/');) {
    named = named || (!part.empty() && part != ".");
    leaves = leaves || part == "..";
  }
  if (leaves || !named) {
    throw UserError(where + ": the path " + Shortened(path) + " leaves the bundle; " + advice);
  }
  return path;
}

std::map<std::string, FileInfo> ReadFiles(const Field &files, const std::string &advice) {
  std::map<std::string, FileInfo> found;
  for (const auto &[path, value] : files.Object().items()) {
    Inside(path, files.where(), advice);
    const Field info = files[path.c_str()];
    FileInfo file{static_cast<uint64_t>(info["size"].Integer(0, INT64_MAX)), info["sha256"].Text()};
    if (!IsSha256(file.sha256)) {
      info["sha256"].Refuse("expected 64 hexadecimal digits");
    }
    found.emplace(path, std::move(file));
  }
  return found;
}

}  // namespace kandinsky
