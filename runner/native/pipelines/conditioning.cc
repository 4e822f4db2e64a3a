#include "pipelines/conditioning.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "common/errors.h"
#include "pipelines/encoders.h"

namespace kandinsky {

Given Given::Of(const Request &request, const Manifest &manifest, Size size) {
  Given given;
  given.paste = request.paste;
  given.each = static_cast<size_t>(request.num_images_per_prompt);
  for (const auto &picture : request.image) {
    given.image.push_back(StartValues(picture.Open("image"), size));
  }
  for (const auto &picture : request.mask_image) {
    given.mask.push_back(MaskOf(picture.Open("mask_image"), size));
  }
  for (const auto &picture : request.hint) {
    // Eight times as large as the latents, whatever the MoVQ: the UNet's own layers make that of it.
    const Dimensions &shape = manifest.Find(request.Kind().map, 1, size).Input("hint").shape;
    if (shape.size() != 4) {
      throw UserError(std::string("the hints of this bundle have not four axes: ") + kExportAgain);
    }
    given.hint.push_back(HintValues(picture.Open("hint"), {shape[2], shape[3]}));
  }
  return given;
}

Conditioning::Conditioning(Models *models, const DecoderKind &kind, const Sampling &sampling, Size size, Given given)
    : models_(models), kind_(kind), sampling_(sampling), size_(size), given_(std::move(given)) {}

std::vector<float> Conditioning::First(NoiseSource *source, size_t rows, std::pair<size_t, size_t> latents) {
  std::tie(channels_, pixels_) = latents;
  const size_t latent = channels_ * pixels_;
  if (given_.image.empty()) {
    return InitialLatents(*sampling_.schedule, source, rows, latent);
  }
  encoded_ = EncodeImages(models_, given_.image, size_);
  for (const auto &encoded : encoded_) {
    if (encoded.size() != latent) {
      throw UserError(std::string("movq_encoder gives another number of values than latents have: ") + kExportAgain);
    }
  }
  if (!given_.mask.empty()) {
    const Dimensions &shape = models_->bundle().manifest().Find(kind_.unet, 1, size_).Input("sample").shape;
    for (const auto &mask : given_.mask) {
      keep_.push_back(KeptLatents(mask, size_, {shape.at(2), shape.at(3)}));
    }
    noise_ = source->Draw(rows, latent);
    std::vector<float> first(noise_);
    const auto scale = static_cast<float>(sampling_.schedule->init_noise_sigma);
    std::transform(first.begin(), first.end(), first.begin(), [scale](float value) { return value * scale; });
    return first;
  }
  std::vector<float> starts;
  for (size_t row = 0; row < rows; ++row) {
    const std::vector<float> &encoded = At(encoded_, row);
    starts.insert(starts.end(), encoded.begin(), encoded.end());
  }
  return sampling_.schedule->Noised(starts, source->Draw(rows, latent), sampling_.start);
}

void Conditioning::Show(size_t start, size_t stop) {
  maps_.clear();
  if (kind_.map.empty()) {
    return;
  }
  const auto run = models_->Take(kind_.map, 1, size_);
  for (size_t row = start; row < stop; ++row) {
    if (Map(row) == nullptr) {
      maps_[row / given_.each] = Mapped(run.get(), row);
    }
  }
}

const std::vector<float> *Conditioning::Map(size_t row) const {
  const bool one = std::max({given_.image.size(), given_.mask.size(), given_.hint.size()}) == 1;
  const auto found = one ? maps_.begin() : maps_.find(row / given_.each);
  return found == maps_.end() ? nullptr : &found->second;
}

std::vector<float> Conditioning::Mapped(Models::Lease *run, size_t row) const {
  Outputs outputs;
  if (given_.mask.empty()) {
    outputs = run->Run({{"hint", At(given_.hint, row)}});
  } else {
    std::vector<float> masked = At(encoded_, row);
    const std::vector<float> &keep = At(keep_, row);
    for (size_t i = 0; i < masked.size(); ++i) {
      masked[i] *= keep[i % pixels_];
    }
    outputs = run->Run({{"masked_latents", masked}, {"mask", keep}});
  }
  RequireFinite(kind_.map, outputs);
  return std::move(outputs.at(0));
}

void Conditioning::Keep(size_t start, size_t index, std::vector<float> *latents) const {
  if (given_.mask.empty()) {
    return;
  }
  const size_t latent = channels_ * pixels_;
  for (size_t row = 0; row < latents->size() / latent; ++row) {
    const std::vector<float> &encoded = At(encoded_, start + row), &keep = At(keep_, start + row);
    std::vector<float> known = encoded;
    if (index + 1 < sampling_.Steps()) {
      const auto noise = noise_.begin() + static_cast<std::ptrdiff_t>((start + row) * latent);
      known = sampling_.schedule->Noised(encoded, {noise, noise + static_cast<std::ptrdiff_t>(latent)}, index + 1);
    }
    float *values = latents->data() + row * latent;
    for (size_t i = 0; i < latent; ++i) {
      const float kept = keep[i % pixels_];
      values[i] = kept * known[i] + (1.0F - kept) * values[i];
    }
  }
}

void Conditioning::Paste(size_t row, Image *image) const {
  if (!given_.paste) {
    return;
  }
  const std::vector<float> &own = At(given_.image, row);
  const Mask &mask = At(given_.mask, row);
  for (size_t i = 0; i < mask.size(); ++i) {
    for (size_t channel = 0; channel < 3 && mask[i] == 0; ++channel) {
      const float value = own[channel * mask.size() + i] * 0.5F + 0.5F;
      image->rgb[3 * i + channel] = static_cast<uint8_t>(std::nearbyint(value * 255.0F));
    }
  }
}

}  // namespace kandinsky
