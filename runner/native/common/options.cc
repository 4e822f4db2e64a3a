#include "common/options.h"

#include <cmath>
#include <limits>

#include "common/errors.h"

namespace kandinsky {

namespace {

constexpr int64_t kMostPixels = int64_t{1} << 26;

void RequireUtf8(const std::string &text, const std::string &name) {
  try {
    Json(text).dump();
  } catch (const Json::exception &) {
    throw UserError(name + " must be Unicode text, not '" + text + "'");
  }
}

bool IsWhole(const Json &value) { return value.is_number_integer(); }

// A whole number, or what is beyond those of 64 bits as the largest of them.
int64_t Whole(const Json &value) {
  return value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX) ? INT64_MAX : value.get<int64_t>();
}

}  // namespace

std::string Repr(const Json &value) {
  if (value.is_null()) {
    return "None";
  }
  if (value.is_boolean()) {
    return value.get<bool>() ? "True" : "False";
  }
  if (value.is_number_float() && !std::isfinite(value.get<double>())) {
    return std::isnan(value.get<double>()) ? "nan" : value.get<double>() > 0 ? "inf" : "-inf";
  }
  std::string text = value.is_string() ? "'" + value.get<std::string>() + "'" : value.dump(-1, ' ', false, Json::error_handler_t::replace);
  return text.size() <= 80 ? text : text.substr(0, 77) + "...";
}

double AsNumber(const Json &value, const std::string &name) {
  const double number = value.is_number() ? value.get<double>() : std::nan("");
  if (!(std::fabs(number) <= static_cast<double>(std::numeric_limits<float>::max()))) {
    throw UserError(name + " is " + Repr(value) + ": it must be a finite number");
  }
  return number;
}

int64_t AsCount(const Json &value, const std::string &name, int64_t most) {
  if (!IsWhole(value) || Whole(value) < 1) {
    throw UserError(name + " is " + Repr(value) + ": it must be a whole number of at least 1");
  }
  if (most > 0 && Whole(value) > most) {
    throw UserError(name + " is " + Repr(value) + ": at most " + std::to_string(most) + " are made at a time");
  }
  return Whole(value);
}

int64_t AsPixels(const Json &value, const std::string &name) {
  if (!IsWhole(value) || Whole(value) < 1 || Whole(value) > kMostPixels) {
    throw UserError(name + " is " + Repr(value) + ": it must be a positive whole number of pixels");
  }
  return Whole(value);
}

double AsGuidanceScale(const Json &value, const std::string &name) {
  const double scale = AsNumber(value, name);
  if (scale < 0) {
    throw UserError(name + " is " + Repr(value) + ": it must not be negative (1 switches guidance off)");
  }
  return scale;
}

double AsShare(const Json &value, const std::string &name) {
  const double share = AsNumber(value, name);
  if (!(share >= 0 && share <= 1)) {
    throw UserError(name + " is " + Repr(value) + ": it must be from 0 (off) to 1");
  }
  return share;
}

double AsStrength(const Json &value, const std::string &name) {
  const double strength = AsNumber(value, name);
  if (!(strength > 0 && strength <= 1)) {
    throw UserError(name + " is " + Short(strength) + ": it must be above 0 (the start comes back) and at most 1 (all of it is made anew)");
  }
  return strength;
}

std::pair<double, double> AsInterval(const Json &value, const std::string &name) {
  if (!value.is_array() || value.size() != 2) {
    throw UserError(name + " is " + Repr(value) + ": it must be (start, stop)");
  }
  const double start = AsNumber(value[0], "an end of " + name), stop = AsNumber(value[1], "an end of " + name);
  if (!(0 <= start && start < stop && stop <= 1)) {
    throw UserError(name + " is (" + Short(start) + ", " + Short(stop) + "): it must be shares of the steps, 0 <= start < stop <= 1");
  }
  return {start, stop};
}

std::string AsText(const Json &value, const std::string &name) {
  if (!value.is_string()) {
    throw UserError(name + " is " + Repr(value) + ": it must be a text");
  }
  RequireUtf8(value.get<std::string>(), name);
  return value.get<std::string>();
}

std::vector<std::string> AsTexts(const Json &value, const std::string &name) {
  if (value.is_string()) {
    return {AsText(value, name)};
  }
  std::vector<std::string> texts;
  bool right = value.is_array();
  for (const auto &text : right ? value : Json::array()) {
    right = right && text.is_string();
    texts.push_back(right ? AsText(text, name) : "");
  }
  if (!right) {
    throw UserError(name + " must be a text or a list of texts, not " + Repr(value));
  }
  if (texts.empty()) {
    throw UserError(name + " is an empty list: give at least one text");
  }
  return texts;
}

Size AsSize(int64_t height, int64_t width, int64_t scale_factor) {
  const int64_t step = scale_factor * scale_factor;
  return {(height + step - 1) / step * step, (width + step - 1) / step * step};
}

}  // namespace kandinsky
