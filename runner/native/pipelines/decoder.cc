#include "pipelines/decoder.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/errors.h"

namespace kandinsky {

namespace {

constexpr int64_t kGroupBytes = int64_t{1} << 26;  // of the rows that go together where models are freed in between
constexpr size_t kMostGroups = 16;                 // of a call whose steps draw noise, which is drawn again for each group
constexpr int64_t kStateCopies = 16, kPictureCopies = 4;  // see runner/pipelines/decoder.py
constexpr float kOneGrayLevel = 1.0F / 255.0F;

const Dimensions &LatentShape(const Manifest &manifest, const DecoderKind &kind, Size size) {
  return manifest.Find(kind.unet, 1, size).Input("sample").shape;
}

// What a row takes while it is denoised: copies of its latents, and its context twice.
int64_t RowBytes(const Manifest &manifest, const DecoderKind &kind, Size size) {
  std::vector<TensorInfo> tensors = manifest.Find(kind.unet + "_context").outputs;
  if (!kind.map.empty()) {
    const auto &map = manifest.Find(kind.map, 1, size).outputs;
    tensors.insert(tensors.end(), map.begin(), map.end());
  }
  int64_t context = 0;
  for (const auto &tensor : tensors) {
    context += Elements(tensor.shape);
  }
  return 4 * (kStateCopies * Elements(LatentShape(manifest, kind, size)) + 2 * context);
}

size_t CountAtOnce(const Manifest &manifest, const DecoderKind &kind, Size size, bool keeps, size_t rows, bool draws) {
  const size_t fewest = keeps ? 1 : static_cast<size_t>(std::max<int64_t>(1, kGroupBytes / RowBytes(manifest, kind, size)));
  return std::min(std::max(fewest, draws ? (rows + kMostGroups - 1) / kMostGroups : 1), rows);
}

// The picture of what the MoVQ gives, (1, 3, H, W) about -1 to 1; warns of one that shows nothing, by its number.
Image ToPicture(const std::vector<float> &planes, Size size, const std::string &number, const Warn &warn) {
  const auto pixels = static_cast<size_t>(size.first * size.second);
  if (planes.size() != 3 * pixels) {
    throw UserError(std::string("movq_decoder gives another number of values than a picture has: ") + kExportAgain);
  }
  Image image{static_cast<int>(size.second), static_cast<int>(size.first), std::vector<uint8_t>(3 * pixels)};
  bool flat = true;
  for (size_t channel = 0; channel < 3; ++channel) {
    float low = std::numeric_limits<float>::infinity(), high = -low;
    for (size_t i = 0; i < pixels; ++i) {
      const float raw = planes[channel * pixels + i];
      if (!std::isfinite(raw)) {
        throw UserError("movq_decoder: the picture holds values that are not finite: check the bundle");
      }
      const float value = std::min(std::max(raw * 0.5F + 0.5F, 0.0F), 1.0F);
      low = std::min(low, value);
      high = std::max(high, value);
      image.rgb[3 * i + channel] = static_cast<uint8_t>(std::nearbyint(value * 255.0F));
    }
    flat = flat && high - low < kOneGrayLevel;
  }
  if (flat) {
    warn("picture " + number + " is flat, all of it one color: see with kandinsky verify whether the bundle is right, then try "
         "another scheduler, steps or guidance scale");
  }
  return image;
}

}  // namespace

Decoder::Decoder(Models *models, const DecoderKind &kind, const Sampling &sampling, Size size, Given given, bool keeps,
                 std::function<void(size_t)> tick)
    : models_(models), kind_(kind), sampling_(sampling), size_(size), keeps_(keeps), tick_(std::move(tick)),
      conditioning_(models, kind, sampling, size, std::move(given)) {
  const Dimensions &shape = LatentShape(models->bundle().manifest(), kind, size);
  if (shape.size() != 4) {
    throw UserError(std::string("the latents of this bundle have not four axes: ") + kExportAgain);
  }
  channels_ = static_cast<size_t>(shape[1]);
  pixels_ = static_cast<size_t>(shape[2] * shape[3]);
}

void Decoder::Make(const ImageEmbeds &embeds, const std::shared_ptr<NoiseSource> &source,
                   const std::function<void(size_t, Image &&)> &deliver) {
  const size_t rows = embeds.image_embeds.size(), latent = channels_ * pixels_;
  const std::vector<float> first = conditioning_.First(source.get(), rows, {channels_, pixels_});
  SharedBatch batch(source, rows);
  for (size_t start = 0; start < rows;) {
    const size_t stop = std::min(start + RowsAtOnce(rows, batch.asked()), rows);
    const auto group = [start, stop](const auto &all, size_t size) {
      return std::decay_t<decltype(all)>(all.begin() + static_cast<std::ptrdiff_t>(start * size),
                                         all.begin() + static_cast<std::ptrdiff_t>(stop * size));
    };
    const auto noise = batch.Group(start, stop);
    const std::vector<float> final =
      Denoise(group(embeds.image_embeds, 1), group(embeds.negative_image_embeds, 1), group(first, latent), noise.get(), start);
    Decode(final, start, rows, deliver);
    start = stop;
  }
}

// The UNet's output channels are epsilon, then variance: guidance is on epsilon only, the variance is the conditional one's and
// reaches the scheduler only if it takes it.
std::vector<float> Decoder::Denoise(const Embeds &image_embeds, const Embeds &negatives, std::vector<float> latents,
                                    NoiseSource *source, size_t start) {
  const Manifest &manifest = models_->bundle().manifest();
  const size_t rows = image_embeds.size(), latent = channels_ * pixels_, steps = sampling_.Steps();
  const std::vector<UnetContext> contexts =
    UnetContexts(models_, kind_.unet, image_embeds, sampling_.guidance.On() ? &negatives : nullptr);
  conditioning_.Show(start, start + rows);
  const int64_t width = manifest.Find(kind_.unet, 1, size_).Input("time_proj").shape.at(1);
  const Json &options = manifest.settings.at(kind_.unet + "_time_proj");
  Models::Batches unet(models_, kind_.unet, size_);
  size_t index_done = sampling_.start;
  const auto predict = [&](const std::vector<float> &scaled, size_t index) {
    const auto time_proj = TimestepEmbedding(sampling_.schedule->timesteps[index], width, options);
    const auto batch = static_cast<size_t>(sampling_.guidance.Batch(index, steps));
    Models::Lease &run = unet.At(static_cast<int64_t>(batch));
    std::vector<float> predicted;
    for (size_t row = 0; row < rows; ++row) {
      const size_t sides = sampling_.guidance.On() ? 2 : 1;
      const auto last = [batch, sides](const std::vector<float> &tensor) {  // the conditional half is last
        return std::vector<float>(tensor.end() - static_cast<std::ptrdiff_t>(tensor.size() / sides * batch), tensor.end());
      };
      std::vector<float> sample;
      for (size_t side = 0; side < batch; ++side) {
        const auto first = scaled.begin() + static_cast<std::ptrdiff_t>(row * latent);
        sample.insert(sample.end(), first, first + static_cast<std::ptrdiff_t>(latent));
      }
      const auto time_addition = last(contexts[row].time_addition), added_kv = last(contexts[row].added_kv);
      Inputs inputs{{"sample", sample}, {"time_proj", time_proj}, {"time_addition", time_addition}, {"added_kv", added_kv}};
      if (const auto *map = conditioning_.Map(start + row)) {
        inputs.emplace("added_map", *map);
      }
      const std::vector<float> output = run.Run(inputs).at(0);
      const size_t side = output.size() / batch;
      if (side < (sampling_.learned_variance ? 2 : 1) * latent) {
        throw UserError("the model gives " + std::to_string(side / pixels_) + " channels, but variance_type learned or learned_range "
                        "needs " + std::to_string(2 * channels_) + ": set variance_type to fixed_small");
      }
      const float *conditional = output.data() + (batch - 1) * side;
      const std::vector<float> epsilon = batch == 1 ? std::vector<float>(conditional, conditional + latent)
                                                    : sampling_.guidance.Combine(output.data(), conditional, latent);
      predicted.insert(predicted.end(), epsilon.begin(), epsilon.end());
      if (sampling_.learned_variance) {
        predicted.insert(predicted.end(), conditional + latent, conditional + 2 * latent);
      }
    }
    return predicted;
  };
  Diffuse(sampling_, {rows, channels_, pixels_}, &latents, predict, source, "decoder", [&] {
    conditioning_.Keep(start, index_done++, &latents);
    tick_(rows);
  });
  return latents;
}

void Decoder::Decode(const std::vector<float> &latents, size_t start, size_t rows,
                     const std::function<void(size_t, Image &&)> &deliver) {
  const size_t latent = channels_ * pixels_, count = latents.size() / latent, at_once = keeps_ ? 1 : count;
  for (size_t first = 0; first < count; first += at_once) {
    std::vector<Image> pictures;
    {
      const auto run = models_->Take("movq_decoder", 1, size_);
      for (size_t row = first; row < std::min(first + at_once, count); ++row) {
        const std::vector<float> one(latents.begin() + static_cast<std::ptrdiff_t>(row * latent),
                                     latents.begin() + static_cast<std::ptrdiff_t>((row + 1) * latent));
        const std::string number = std::to_string(start + row + 1) + " of " + std::to_string(rows);
        pictures.push_back(ToPicture(run->Run({{"latents", one}}).at(0), size_, number, models_->warn()));
        conditioning_.Paste(start + row, &pictures.back());
      }
    }
    for (size_t i = 0; i < pictures.size(); ++i) {
      deliver(start + first + i, std::move(pictures[i]));
    }
  }
}

size_t Decoder::RowsAtOnce(size_t rows, bool draws) const {
  return CountAtOnce(models_->bundle().manifest(), kind_, size_, keeps_, rows, draws);
}

std::vector<const GraphInfo *> Decoder::Graphs(const Manifest &manifest, const DecoderKind &kind, const Sampling &sampling, Size size) {
  std::vector<const GraphInfo *> graphs{&manifest.Find(kind.unet + "_context")};
  if (kind.Takes("image")) {
    graphs.push_back(&manifest.Find("movq_encoder", 1, size));
  }
  if (!kind.map.empty()) {
    graphs.push_back(&manifest.Find(kind.map, 1, size));
  }
  for (const int64_t batch : sampling.Batches()) {
    graphs.push_back(&manifest.Find(kind.unet, batch, size));
  }
  graphs.push_back(&manifest.Find("movq_decoder", 1, size));
  return graphs;
}

int64_t Decoder::Beside(const Manifest &manifest, const DecoderKind &kind, Size size, size_t rows, bool holds) {
  const int64_t latent = 4 * Elements(LatentShape(manifest, kind, size)), picture = 3 * size.first * size.second;
  const auto group = static_cast<int64_t>(CountAtOnce(manifest, kind, size, false, rows, true));
  return group * (RowBytes(manifest, kind, size) + picture) + kPictureCopies * 4 * picture +
         static_cast<int64_t>(rows) * (2 * latent + (holds ? picture : 0));
}

}  // namespace kandinsky
