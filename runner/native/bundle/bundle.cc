#include "bundle/bundle.h"

#include <algorithm>
#include <cerrno>
#include <optional>
#include <system_error>

#include <unistd.h>

#include "bundle/stored.h"
#include "common/errors.h"
#include "common/fields.h"
#include "common/files.h"
#include "common/machine.h"
#include "common/sha256.h"

namespace kandinsky {

namespace {

constexpr int64_t kPackedFormat = 4, kLargest = int64_t{1} << 32, kUnit = int64_t{1} << 16;
const std::string kLiteVersion = "2.0.0", kOrder = " 3";  // ORDER of runner/bundle/packed.py
const std::string kPackAgain = "run kandinsky-mindir pack on the bundle again, or remove that folder";
const std::vector<std::string> kConstants = {"clip_mean", "clip_std", "empty_text_embeds", "empty_text_hidden_states",
                                             "empty_text_mask", "zero_image_embeds"};

std::string ReadText(const std::string &path, const std::string &remedy) {
  try {
    return ReadFile(path, kLargestManifest);
  } catch (const std::system_error &error) {
    throw UserError(path + " cannot be read (" + error.code().message() + "): " + remedy);
  } catch (const UserError &error) {
    throw UserError(path + " cannot be read (" + error.what() + "): " + remedy);
  }
}

MadeFor ReadMadeFor(const Field &field, std::string *lite) {
  *lite = field["lite"].Text();
  return {field["bundle"].Text(), field["processor"].Text(), field["precision"].Text(), field["kernels"].Text(),
          static_cast<int>(field["threads"].Integer(1, INT32_MAX))};
}

// Why what was packed is of no use here, as runner/bundle/packed.py says it; "" if it is.
std::string WhyNot(const std::string &path, const MadeFor &made, const std::string &lite, const MadeFor &here) {
  std::vector<std::string> reasons, choices;
  if (made.bundle != here.bundle) {
    reasons.push_back("another export of it");
  }
  if (lite != kLiteVersion) {
    reasons.push_back("MindSpore Lite " + lite);
  }
  if (made.processor != here.processor) {
    reasons.push_back("another processor");
  }
  if (made.threads != here.threads) {
    reasons.push_back(std::to_string(made.threads) + " threads, not " + std::to_string(here.threads));
    choices.push_back("--threads " + std::to_string(made.threads));
  }
  if (made.precision != here.precision) {
    reasons.push_back(made.precision + ", not " + here.precision);
    choices.push_back("--precision " + made.precision);
  } else if (made.kernels != here.kernels) {
    reasons.push_back("other kernels (" + made.kernels + ")");
  }
  if (reasons.empty()) {
    return "";
  }
  std::string all, chosen;
  for (const auto &reason : reasons) {
    all += (all.empty() ? "" : " and ") + reason;
  }
  for (const auto &choice : choices) {
    chosen += (chosen.empty() ? "" : " ") + choice;
  }
  std::string remedies = choices.size() == reasons.size() ? "choose " + chosen : "";
  if (here.precision != "float16") {  // nothing packs for it
    remedies += std::string(remedies.empty() ? "" : ", or ") + "run kandinsky-mindir pack on the bundle again";
  }
  return "what is packed in " + path + " is for " + all + ": models load as exported, which is slower and takes more memory" +
         (remedies.empty() ? "" : "; ") + remedies;
}

}  // namespace

std::vector<std::string> ModelSource::Names(const Layout &layout) const {
  const size_t slash = name.rfind('/');
  const std::string folder = slash == std::string::npos ? "" : name.substr(0, slash + 1);
  std::vector<std::string> names{name};
  const auto add = [&](const std::string &source) {
    if (std::find(names.begin(), names.end(), folder + source) == names.end()) {
      names.push_back(folder + source);
    }
  };
  for (const auto &source : layout.Sources()) {
    if (source == kWeights && files->files().count(folder + kStored) != 0) {
      for (const auto &[path, info] : files->files()) {
        if (path.compare(0, folder.size(), folder) == 0 && IsStored(path.substr(folder.size()))) {
          add(path.substr(folder.size()));
        }
      }
      add(kIndex);
    } else {
      add(source);
    }
  }
  for (const auto &weight : packed) {
    add(weight.source);
  }
  return names;
}

int64_t ModelSource::WideAtOnce(const Layout &layout) const {
  const size_t slash = name.rfind('/');
  const std::string folder = slash == std::string::npos ? "" : name.substr(0, slash + 1);
  int64_t largest = 0;
  std::optional<StoredPart> part;
  for (const auto &stretch : layout.stretches) {
    if (stretch.Mapped() && stretch.source == kWeights && files->files().count(folder + kStored) != 0 && stretch.length > largest) {
      if (!part) {
        part.emplace(files->Place(folder.substr(0, folder.size() - 1)));
      }
      largest = part->Widens(stretch.offset, stretch.length) ? stretch.length : largest;
    }
  }
  return largest;
}

Bundle::Bundle(const std::string &path, Check check, const Stop *stop) : path_(path), check_(check), stop_(stop) {
  while (path_.size() > 1 && path_.back() == '/') {
    path_.pop_back();
  }
  const std::string manifest = path_ + "/" + kManifestName;
  if (path_.empty() || access(manifest.c_str(), F_OK) != 0) {
    throw UserError((path_.empty() ? "''" : path_) + " is not a bundle (no " + kManifestName +
                    "): make one with kandinsky-mindir export");
  }
  const std::string text = ReadText(manifest, kExportAgain);
  manifest_ = Manifest::Parse(text, manifest);
  sha256_ = Sha256Hex(text.data(), text.size());
  files_ = std::make_shared<CheckedFiles>(path_, manifest_.files, kExportAgain, check, stop);
}

const std::vector<float> &Bundle::Constant(const std::string &name) const {
  std::call_once(constants_read_, [this] {
    auto found = ReadArrays(files_->File("constants.npz"), kConstants);
    for (const auto &constant : kConstants) {
      const Array &array = found.at(constant);
      if (array.dtype != "float32" || array.floats.empty() ||
          (constant.compare(0, 5, "clip_") == 0 && array.floats.size() != found.at("zero_image_embeds").floats.size())) {
        throw UserError(files_->Place("constants.npz") + " holds no usable " + constant + ": it is damaged; " + kExportAgain);
      }
    }
    constants_ = std::move(found);
  });
  return constants_.at(name).floats;
}

std::string Bundle::UsePacked(int threads, const std::string &precision, const std::string &kernels) {
  const std::string folder = path_ + "/packed";
  packed_.clear();
  packed_files_.reset();
  if (!IsFolder(folder)) {
    return "";
  }
  const std::string where = folder + "/" + kManifestName, text = ReadText(where, kPackAgain);
  const Json data = ParseJson(text, where, kPackAgain);
  const Field file(data, where, ": it is damaged; " + kPackAgain);
  const int64_t format = file["format"].Integer(INT64_MIN, INT64_MAX);
  if (format != kPackedFormat) {
    throw UserError(where + " has format " + std::to_string(format) + ", this version reads format " +
                    std::to_string(kPackedFormat) + ": " + kPackAgain);
  }
  if (!IsSealed(text, file["seal"].Text())) {
    throw UserError(where + " is not as pack wrote it: it is damaged, or was edited; " + kPackAgain);
  }
  std::string lite;
  const MadeFor made = ReadMadeFor(file["made_for"], &lite);
  const std::string order = kernels == "lite" ? "" : kOrder;
  const std::string reason = WhyNot(path_, made, lite, {sha256_, Processor(), precision, kernels + order, threads});
  if (!reason.empty()) {
    return reason;
  }
  const auto listed = ReadFiles(file["files"], kPackAgain);
  auto files = std::make_shared<CheckedFiles>(folder, listed, kPackAgain, check_, stop_);
  const Field graphs = file["graphs"];
  for (const auto &[path, value] : graphs.Object().items()) {
    const Field graph = graphs[path.c_str()];
    ModelSource source{files, graph["layout"].Text(), {}};
    if (listed.count(source.name) == 0) {
      graph["layout"].Refuse(Shortened(source.name) + " is none of its files");
    }
    for (const auto &row : graph["packed"].json()) {
      try {
        source.packed.push_back(Stretch::Of(row));
      } catch (const std::runtime_error &) {
        graph["packed"].Refuse("it holds no place of a weight");
      }
      const Stretch &weight = source.packed.back();
      if (weight.Hole() || weight.position > kLargest || weight.offset % kUnit != 0) {
        graph["packed"].Refuse("it holds no place of a weight");
      }
    }
    packed_.emplace(path, std::move(source));
  }
  packed_files_ = files;
  return "";
}

ModelSource Bundle::Model(const std::string &layout) const {
  const auto found = packed_.find(layout);
  return found != packed_.end() ? found->second : ModelSource{files_, layout, {}};
}

void Bundle::VerifyFiles() const {
  files_->VerifyFiles();
  if (packed_files_) {
    packed_files_->VerifyFiles();
  }
}

int64_t Bundle::WeightBytes() const {
  const std::string ending = "weights.bin";
  uint64_t total = 0;
  for (const auto &[name, info] : manifest_.files) {
    if (name.size() >= ending.size() && name.compare(name.size() - ending.size(), ending.size(), ending) == 0 &&
        (NameOf(name) == kStored || !IsStored(NameOf(name)))) {
      const std::string stored = std::string("/") + kStored;
      const bool narrow = name.size() > stored.size() && name.compare(name.size() - stored.size(), stored.size(), stored) == 0;
      total += narrow ? static_cast<uint64_t>(StoredPart(files_->Place(name.substr(0, name.size() - stored.size()))).size())
                      : info.size;
    }
  }
  return static_cast<int64_t>(total);
}

}  // namespace kandinsky
