#include "bundle/stored.h"

#include <numeric>
#include <sstream>
#include <vector>

#include <nlohmann/json.hpp>

#include "bundle/manifest.h"
#include "common/errors.h"
#include "common/json.h"

namespace kandinsky {

namespace {

constexpr int64_t kElement = 4;                   // bytes of a float32
constexpr int64_t kLarge = int64_t{1} << 18;      // bytes: from here on a tensor begins at a page
constexpr int64_t kPages = int64_t{1} << 16, kSmallest = 64;
constexpr size_t kMostIndex = size_t{1} << 27;
constexpr int64_t kMostElements = int64_t{1} << 36;  // of any tensor
const std::string kRemedy = std::string("it is damaged; ") + kExportAgain;

int64_t Whole(const nlohmann::ordered_json &value, int64_t most) {
  if (!value.is_number_integer() || value.get<double>() < 0 || value.get<double>() > static_cast<double>(most)) {
    throw std::runtime_error("a number in it is none");
  }
  return value.get<int64_t>();
}

}  // namespace

bool IsStored(const std::string &file) {
  const std::string start = "stored_", ending = "_weights.bin";  // and a number between them
  return file == kStored ||
         (file.size() > start.size() + ending.size() && file.compare(0, start.size(), start) == 0 &&
          file.compare(file.size() - ending.size(), ending.size(), ending) == 0 &&
          file.find_first_not_of("0123456789", start.size()) == file.size() - ending.size());
}

StoredPart::StoredPart(const std::string &folder) : folder_(folder) {
  const std::string index = folder + "/" + kIndex;
  try {
    const std::string text = ReadFile(index, kMostIndex);
    if (IsTooDeep(text)) {
      throw std::runtime_error("it is nested too deeply");
    }
    const auto rows = nlohmann::ordered_json::parse(text);  // the file's order counts
    for (const auto &row : rows) {
      std::vector<int64_t> shape;
      int64_t count = 1;
      for (const auto &side : row.at("shape")) {
        shape.push_back(Whole(side, kMostElements));
        if (shape.back() != 0 && count > kMostElements / shape.back()) {
          throw std::runtime_error("a tensor is larger than any");
        }
        count *= shape.back();
      }
      const int64_t length = kElement * count, alignment = length >= kLarge ? kPages : kSmallest;
      const int64_t start = (size_ + alignment - 1) / alignment * alignment;
      size_ = start + length;
      const auto name = row.at("file").get<std::string>();
      if (!IsStored(name) || count == 0) {
        continue;  // a merge has moved it
      }
      auto found = data_.find(name);
      if (found == data_.end()) {
        found = data_.emplace(name, MappedFile(folder + "/" + name, kRemedy)).first;
      }
      const MappedFile &data = found->second;
      Place place;
      place.end = size_;
      place.file = name;
      place.type = row.at("dtype").get<std::string>();
      place.values = Whole(row.at("offset"), static_cast<int64_t>(data.size()));
      place.tensor.type = StoredTensor::TypeOf(place.type);
      for (const auto &factors : row.value("taps", nlohmann::ordered_json::array())) {
        for (const auto &factor : factors) {
          place.tensor.factors.push_back(factor.get<double>());
        }
      }
      const bool sums = !place.tensor.factors.empty();
      if (row.contains("scales") != (place.tensor.type == StoredTensor::Type::kInt8) ||
          (sums && (shape.size() != 3 || place.tensor.factors.size() != kTaps * static_cast<size_t>(shape[0])))) {
        throw std::runtime_error("the fields of a tensor do not fit together");
      }
      place.tensor.plane = static_cast<size_t>(count / (shape.empty() ? 1 : shape[0]));
      place.tensor.row = static_cast<size_t>(sums ? shape[2] : shape.size() > 1 ? count / shape[0] : count);
      place.tensor.values = data.data() + place.values;
      place.scales = row.contains("scales") ? Whole(row.at("scales"), static_cast<int64_t>(data.size())) : 0;
      place.tensor.scales = data.data() + place.scales;
      const auto elements = static_cast<size_t>(count);
      if (static_cast<size_t>(place.values) + place.tensor.EndOfValues(0, elements) > data.size() ||
          (place.scales != 0 && static_cast<size_t>(place.scales) + place.tensor.EndOfScales(0, elements) > data.size())) {
        throw std::runtime_error(folder + "/" + name + " is too short for it");
      }
      places_.emplace(start, std::move(place));
    }
  } catch (const UserError &) {
    throw;
  } catch (const std::exception &error) {
    throw UserError(index + " cannot be read (" + error.what() + "): " + kRemedy);
  }
}

StoredPart::Source StoredPart::Find(int64_t offset, int64_t length) const {
  auto found = places_.upper_bound(offset);
  if (found == places_.begin() || (--found)->second.end < offset + length || (offset - found->first) % kElement != 0 ||
      length % kElement != 0) {
    throw UserError(folder_ + "/" + kStored + " ends before what a layout takes from it: it is cut or damaged; " + kExportAgain);
  }
  return {&found->second, (offset - found->first) / kElement};
}

bool StoredPart::Lies(const Source &source) {
  return source.place->type == "float32" && source.place->tensor.factors.empty() &&
         (source.place->values + kElement * source.first) % kPages == 0;
}

bool StoredPart::Widens(int64_t offset, int64_t length) const { return !Lies(Find(offset, length)); }

std::string StoredPart::Row(int64_t position, int64_t offset, int64_t length) const {
  const Source source = Find(offset, length);
  const Place &place = *source.place;
  std::ostringstream row;
  row.precision(17);
  if (Lies(source)) {
    row << "raw " << position << ' ' << length << ' ' << place.values + kElement * source.first << ' ' << folder_ << '/' << place.file;
    return row.str();
  }
  row << "stored " << position << ' ' << length << ' ' << source.first << ' ' << place.type << ' ' << place.values << ' ' << place.tensor.row << ' '
      << place.tensor.plane << ' ' << place.scales << ' ' << place.tensor.factors.size();
  for (const double factor : place.tensor.factors) {
    row << ' ' << factor;
  }
  row << ' ' << folder_ << '/' << place.file;
  return row.str();
}

std::string StoredPart::Read(int64_t offset, int64_t length) const {
  const Source source = Find(offset, length);
  std::vector<float> values(static_cast<size_t>(length / kElement));
  source.place->tensor.Widen(static_cast<size_t>(source.first), values.size(), values.data());
  return {reinterpret_cast<const char *>(values.data()), static_cast<size_t>(length)};
}

}  // namespace kandinsky
