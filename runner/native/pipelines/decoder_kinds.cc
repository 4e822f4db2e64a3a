#include "pipelines/decoder_kinds.h"

#include <algorithm>

#include "common/errors.h"

namespace kandinsky {

namespace {

const std::vector<DecoderKind> kKinds = {
  {{}, "decoder", "unet", ""},
  {{"image"}, "decoder", "unet", ""},
  {{"image", "mask_image"}, "inpaint", "inpaint_unet", "inpaint_map"},
  {{"hint"}, "controlnet", "controlnet_unet", "controlnet_map"},
  {{"image", "hint"}, "controlnet", "controlnet_unet", "controlnet_map"},
};

std::string Joined(const std::vector<std::string> &names) {
  std::string text;
  for (const auto &name : names) {
    text += (text.empty() ? "" : " and ") + name;
  }
  return text;
}

}  // namespace

bool DecoderKind::Takes(const std::string &name) const { return std::find(brings.begin(), brings.end(), name) != brings.end(); }

const DecoderKind &KindOf(const std::vector<std::string> &brings) {
  std::string known;
  for (const auto &kind : kKinds) {
    if (kind.brings == brings) {
      return kind;
    }
    known += (known.empty() || kind.brings.empty() ? "" : "; ") + Joined(kind.brings);
  }
  throw UserError("a request cannot bring " + Joined(brings) + " alone: known are " + known);
}

void RequireKind(const Manifest &manifest, const DecoderKind &kind, const std::string &path) {
  if (manifest.schedulers.count(kind.kind) == 0) {
    throw UserError(path + " has no " + kind.kind + " decoder: export it again, with that checkpoint as one more --decoder");
  }
}

}  // namespace kandinsky
