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

StoredPart::StoredPart(const std::string &folder) : path_(folder + "/" + kStored), data_(path_, kRemedy) {
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
      if (row.at("file").get<std::string>() != kStored || count == 0) {
        continue;  // a merge has moved it
      }
      Place place;
      place.end = size_;
      place.type = row.at("dtype").get<std::string>();
      place.values = Whole(row.at("offset"), static_cast<int64_t>(data_.size()));
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
      place.tensor.values = data_.data() + place.values;
      place.scales = row.contains("scales") ? Whole(row.at("scales"), static_cast<int64_t>(data_.size())) : 0;
      place.tensor.scales = data_.data() + place.scales;
      const auto elements = static_cast<size_t>(count);
      if (static_cast<size_t>(place.values) + place.tensor.EndOfValues(0, elements) > data_.size() ||
          (place.scales != 0 && static_cast<size_t>(place.scales) + place.tensor.EndOfScales(0, elements) > data_.size())) {
        throw std::runtime_error(path_ + " is too short for it");
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
    throw UserError(path_ + " ends before what a layout takes from it: it is cut or damaged; " + kExportAgain);
  }
  return {&found->second, (offset - found->first) / kElement};
}

std::string StoredPart::Row(int64_t offset, int64_t length) const {
  const Source source = Find(offset, length);
  const Place &place = *source.place;
  std::ostringstream row;
  row.precision(17);
  row << length << ' ' << source.first << ' ' << place.type << ' ' << place.values << ' ' << place.tensor.row << ' '
      << place.tensor.plane << ' ' << place.scales << ' ' << place.tensor.factors.size();
  for (const double factor : place.tensor.factors) {
    row << ' ' << factor;
  }
  return row.str();
}

std::string StoredPart::Read(int64_t offset, int64_t length) const {
  const Source source = Find(offset, length);
  std::vector<float> values(static_cast<size_t>(length / kElement));
  source.place->tensor.Widen(static_cast<size_t>(source.first), values.size(), values.data());
  return {reinterpret_cast<const char *>(values.data()), static_cast<size_t>(length)};
}

}  // namespace kandinsky
