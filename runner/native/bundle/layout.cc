#include "bundle/layout.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <system_error>

#include <lzma.h>
#include <unistd.h>

#include "common/errors.h"
#include "bundle/manifest.h"
#include "bundle/stored.h"

namespace kandinsky {

namespace {

constexpr int64_t kUnit = int64_t{1} << 16;       // the largest page of the machines that Linux runs on
constexpr int64_t kLargest = int64_t{1} << 32;    // what a flatbuffer's offsets reach
constexpr size_t kMostBytes = size_t{1} << 27;    // of a layout, expanded
constexpr uint64_t kDecompressor = uint64_t{1} << 26;
constexpr size_t kMostPacked = size_t{1} << 27;
const std::string kRemedy = std::string("it is damaged; ") + kExportAgain;

std::string Decompressed(const std::string &data) {
  lzma_stream stream = LZMA_STREAM_INIT;
  if (lzma_stream_decoder(&stream, kDecompressor, 0) != LZMA_OK) {
    throw std::runtime_error("there is no memory to expand it");
  }
  std::string content;
  stream.next_in = reinterpret_cast<const uint8_t *>(data.data());
  stream.avail_in = data.size();
  lzma_ret status = LZMA_OK;
  std::vector<uint8_t> block(size_t{1} << 20);
  while (status == LZMA_OK && content.size() <= kMostBytes) {
    stream.next_out = block.data();
    stream.avail_out = block.size();
    status = lzma_code(&stream, LZMA_FINISH);
    content.append(reinterpret_cast<char *>(block.data()), block.size() - stream.avail_out);
  }
  const bool whole = status == LZMA_STREAM_END && stream.avail_in == 0 && content.size() <= kMostBytes;
  lzma_end(&stream);
  if (!whole) {
    throw std::runtime_error("it is cut, too long, or holds more than " + std::to_string(kMostBytes) + " bytes");
  }
  return content;
}

bool PlainName(const std::string &name) {
  const auto known = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; };
  return !name.empty() && known(name[0]) && std::all_of(name.begin(), name.end(), [&known](char c) {
    return static_cast<unsigned char>(c) < 0x80 && (known(c) || c == '.' || c == '-');
  });
}

std::string Beside(const std::string &path, const std::string &name) { return FolderOf(path) + "/" + name; }

}  // namespace

bool Stretch::Mapped() const {
  return !Hole() && position % kUnit == 0 && offset % kUnit == 0 && length % kUnit == 0;
}

Stretch Stretch::Of(const Json &row) {
  const auto whole = [&row](size_t i) { return row[i].is_number_integer() && row[i].get<double>() < 9e18; };
  if (!row.is_array() || row.size() != 4 || !whole(0) || !row[1].is_string() || !whole(2) || !whole(3)) {
    throw std::runtime_error("it has a stretch that is none");
  }
  Stretch stretch{row[0].get<int64_t>(), row[1].get<std::string>(), row[2].get<int64_t>(), row[3].get<int64_t>()};
  const int64_t most = int64_t{1} << 60;  // so that sums do not overflow
  if (!(stretch.Hole() || PlainName(stretch.source)) || std::min({stretch.position, stretch.offset, stretch.length - 1}) < 0 ||
      std::max({stretch.position, stretch.offset, stretch.length}) > most) {
    throw std::runtime_error("its stretches do not fit together");
  }
  return stretch;
}

Layout Layout::Read(const std::string &path) {
  try {
    const std::string content = Decompressed(ReadFile(path, kMostPacked));
    const size_t line = content.find('\n');
    Layout layout;
    if (IsTooDeep(std::string_view(content).substr(0, line))) {
      throw std::runtime_error("its table is nested too deeply");
    }
    const Json table = Json::parse(content.substr(0, line));
    if (!table.is_array() || line == std::string::npos) {
      throw std::runtime_error("it has no table of stretches");
    }
    for (const auto &row : table) {
      layout.stretches.push_back(Stretch::Of(row));
    }
    layout.skeleton = content.substr(line + 1);
    if (!layout.Plausible()) {
      throw std::runtime_error("its stretches do not fit together");
    }
    return layout;
  } catch (const UserError &) {
    throw;
  } catch (const std::exception &error) {
    throw UserError(path + " cannot be read (" + error.what() + "): " + kRemedy);
  }
}

std::vector<std::string> Layout::Sources() const {
  std::vector<std::string> names;
  for (const auto &stretch : stretches) {
    if (!stretch.Hole() && std::find(names.begin(), names.end(), stretch.source) == names.end()) {
      names.push_back(stretch.source);
    }
  }
  return names;
}

int64_t Layout::size() const {
  int64_t size = static_cast<int64_t>(skeleton.size());
  for (const auto &stretch : stretches) {
    size += stretch.length;
  }
  return size;
}

int64_t Layout::WeightBytes() const {
  int64_t size = static_cast<int64_t>(skeleton.size());
  for (const auto &stretch : stretches) {
    size += stretch.Hole() ? 0 : stretch.length;
  }
  return size;
}

bool Layout::Plausible() const {
  int64_t end = 0, total = static_cast<int64_t>(skeleton.size());
  for (const auto &stretch : stretches) {
    total += stretch.length;
    if (stretch.position < end || total > kLargest) {
      return false;
    }
    end = stretch.position + stretch.length;
  }
  return end <= total;
}

ModelFile Layout::Assemble(const std::string &path, const std::vector<Stretch> &packed) const {
  const std::string folder = AbsolutePath(FolderOf(path));
  if (folder.find('\n') != std::string::npos) {
    throw UserError("the path '" + folder + "' has a line break, which the bridge to Lite cannot take: move the bundle to "
                    "another folder");
  }
  std::map<std::string, MappedFile> sources;
  std::optional<StoredPart> part;  // in place of weights.bin
  if (access(Beside(path, kWeights).c_str(), F_OK) != 0 && access(Beside(path, kStored).c_str(), F_OK) == 0) {
    part.emplace(folder);
  }
  const auto stored = [&part](const Stretch &stretch) { return part && stretch.source == kWeights; };
  const auto check = [&](const Stretch &stretch) {
    if (stretch.Hole() || stored(stretch)) {
      return;
    }
    const std::string place = Beside(path, stretch.source);
    auto found = sources.find(stretch.source);
    if (found == sources.end()) {
      found = sources.emplace(stretch.source, MappedFile(place, kRemedy)).first;
    }
    if (stretch.offset + stretch.length > static_cast<int64_t>(found->second.size())) {
      throw UserError(place + " ends before what " + NameOf(path) + " takes from it: it is cut or damaged; " + kExportAgain);
    }
  };
  std::ostringstream table;
  const auto add = [&](const char *kind, const Stretch &stretch) {
    table << kind << ' ' << stretch.position << ' ' << stretch.length << ' ' << stretch.offset << ' ' << folder << '/'
          << stretch.source << '\n';
  };
  for (const auto &stretch : stretches) {
    check(stretch);
    if (stretch.Mapped() && stored(stretch)) {
      table << part->Row(stretch.position, stretch.offset, stretch.length) << '\n';
    } else if (stretch.Mapped()) {
      add("raw", stretch);
    }
  }
  for (const auto &weight : packed) {
    check(weight);
    add("packed", weight);
  }
  ModelFile model{MemoryFile("kandinsky-mindir-model"), MemoryFile("kandinsky-mindir-table"), path};
  try {
    if (ftruncate(model.file.get(), static_cast<off_t>(size())) != 0) {
      throw std::system_error(errno, std::generic_category());
    }
    WriteAll(model.table.get(), table.str().data(), table.str().size());
    int64_t used = 0, end = 0;
    const auto fill = [&](int64_t length) {  // with bytes of the skeleton
      WriteAll(model.file.get(), skeleton.data() + used, static_cast<size_t>(length), end);
      used += length;
      end += length;
    };
    for (const auto &stretch : stretches) {
      fill(stretch.position - end);
      if (stored(stretch) && !stretch.Mapped()) {
        const std::string content = part->Read(stretch.offset, stretch.length);
        WriteAll(model.file.get(), content.data(), content.size(), end);
      } else if (!stretch.Hole() && !stretch.Mapped()) {
        WriteAll(model.file.get(), sources.at(stretch.source).data() + stretch.offset, static_cast<size_t>(stretch.length), end);
      }
      end += stretch.length;
    }
    fill(static_cast<int64_t>(skeleton.size()) - used);
  } catch (const std::system_error &error) {
    throw UserError(path + ": there is no room in memory for the model: " + error.code().message());
  }
  return model;
}

}  // namespace kandinsky
