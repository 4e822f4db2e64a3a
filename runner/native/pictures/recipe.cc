#include "pictures/recipe.h"

#include <cctype>
#include <cstdio>
#include <sstream>
#include <vector>

#include "common/errors.h"
#include "common/files.h"

#ifndef KANDINSKY_MINDIR_VERSION
#define KANDINSKY_MINDIR_VERSION "0"
#endif

namespace kandinsky {

const char *const kVersion = KANDINSKY_MINDIR_VERSION;

namespace {

constexpr const char *kKey = "kandinsky-mindir", *kBytes = "file:";
constexpr int64_t kFormat = 2;

// The form of AUTOMATIC1111's web interface, which picture viewers know.
std::string Parameters(const Recipe &recipe) {
  const Request &request = recipe.request;
  std::ostringstream text;
  for (const auto &prompt : request.prompt) {
    text << prompt << '\n';
  }
  for (const auto &item : request.items) {
    text << Short(item.weight) << " x " << item.text.value_or(item.image.value_or("a picture")) << '\n';
  }
  if (request.negative_prompt) {
    text << "Negative prompt: " << request.negative_prompt->front() << '\n';
  }
  const Json &sampler = request.scheduler;
  text << "Steps: " << request.num_inference_steps.value_or(0)
       << ", Sampler: " << (sampler.is_object() ? sampler.value("_class_name", "") : sampler.get<std::string>())
       << ", CFG scale: " << Json(request.guidance_scale.value_or(0)).dump() << ", Seed: " << request.seed.dump()
       << (request.strength ? ", Denoising strength: " + Json(*request.strength).dump() : "") << ", RNG: " << request.rng
       << ", Size: " << request.width.value_or(0) << 'x' << request.height.value_or(0) << ", Model hash: " << recipe.bundle_sha256.substr(0, 10);
  if (request.row) {
    text << ", Picture: " << *request.row + 1 << " of " << request.rows;
  }
  return text.str();
}

bool IsUtf8(const std::string &text) {
  try {
    Json(text).dump();
    return true;
  } catch (const Json::exception &) {
    return false;
  }
}

std::vector<std::string> Parts(const std::string &path) {
  std::vector<std::string> parts;
  std::istringstream stream(path);
  for (std::string part; std::getline(stream, part, '/');) {
    if (!part.empty() && part != ".") {
      parts.push_back(part);
    }
  }
  return parts;
}

}  // namespace

Json Recipe::ToJson() const {
  Json data{{"format", kFormat}, {"request", request.ToJson()}, {"bundle", bundle}, {"bundle_sha256", bundle_sha256}};
  if (!beside.empty()) {
    data["beside"] = beside;
  }
  if (grid) {
    data["grid"] = true;
  }
  data["versions"] = {{"kandinsky-mindir", kVersion}, {"lite bridge", "2.0.0"}};
  if (precision != "float32") {
    data["versions"]["precision"] = precision;
  }
  return data;
}

TextChunks Recipe::Text() const { return {{"parameters", Parameters(*this)}, {kKey, ToJson().dump(-1, ' ', true)}}; }

Recipe Recipe::Read(const std::string &path) {
  const auto text = ReadPngText(path, kKey);
  if (!text) {
    throw UserError(path + " carries no recipe: only PNG files that generate or interpolate wrote do");
  }
  const std::string where = path + ": its recipe";
  if (IsTooDeep(*text)) {
    throw UserError(where + " is damaged (it is nested too deeply)");
  }
  try {
    const Json data = Json::parse(*text);
    const int64_t format = data.at("format").get<int64_t>();
    if (format != kFormat) {
      throw UserError(where + " has format " + std::to_string(format) + ", this version reads format " + std::to_string(kFormat));
    }
    Recipe recipe;
    recipe.request = Request::Of(data.at("request"), where + ": ");
    recipe.bundle = data.at("bundle").get<std::string>();
    recipe.bundle_sha256 = data.at("bundle_sha256").get<std::string>();
    recipe.beside = data.value("beside", recipe.beside);
    recipe.grid = data.value("grid", false);
    if (data.count("versions") != 0) {
      recipe.precision = data.at("versions").value("precision", recipe.precision);
    }
    return recipe;
  } catch (const Json::exception &error) {
    throw UserError(where + " is damaged (" + error.what() + ")");
  }
}

std::string PathAsText(const std::string &path) {
  if (IsUtf8(path) && path.rfind(kBytes, 0) != 0) {
    return path;
  }
  std::string text = kBytes;
  for (const char c : path) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = byte < 0x80 && (std::isalnum(byte) != 0 || std::string("_.-~/").find(c) != std::string::npos);
    char escape[4];
    std::snprintf(escape, sizeof(escape), "%%%02X", byte);
    text += plain ? std::string(1, c) : escape;
  }
  return text;
}

std::string TextAsPath(const std::string &text) {
  if (text.rfind(kBytes, 0) != 0) {
    return text;
  }
  std::string path;
  for (size_t i = 5; i < text.size(); ++i) {
    unsigned byte = 0;
    if (text[i] == '%' && i + 2 < text.size() && std::sscanf(text.c_str() + i + 1, "%2x", &byte) == 1) {
      path += static_cast<char>(byte);
      i += 2;
    } else {
      path += text[i];
    }
  }
  return path;
}

std::string RelativeTo(const std::string &path, const std::string &picture) {
  const auto target = Parts(RealPath(path)), folder = Parts(FolderOf(RealPath(picture)));
  size_t same = 0;
  while (same < target.size() && same < folder.size() && target[same] == folder[same]) {
    ++same;
  }
  std::string relative;
  for (size_t i = same; i < folder.size(); ++i) {
    relative += "../";
  }
  for (size_t i = same; i < target.size(); ++i) {
    relative += target[i] + "/";
  }
  return PathAsText(relative.empty() ? "." : relative.substr(0, relative.size() - 1));
}

}  // namespace kandinsky
