// Image embeddings to pictures: diffusion with the UNet, then the MoVQ decoder (runner/pipelines/decoder.py).

#ifndef KANDINSKY_MINDIR_DECODER_H
#define KANDINSKY_MINDIR_DECODER_H

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "diffusion/diffusion.h"
#include "pipelines/encoders.h"
#include "pictures/images.h"
#include "pipelines/prior.h"

namespace kandinsky {

class Decoder {
 public:
  // size: (height, width) of the pictures. keeps: whether models stay loaded from one to the next.
  Decoder(Models *models, const Sampling &sampling, Size size, bool keeps, std::function<void(size_t)> tick);

  // Pictures one after another, each given to `deliver` with its number. No model is held meanwhile.
  void Make(const ImageEmbeds &embeds, const std::shared_ptr<NoiseSource> &source,
            const std::function<void(size_t, Image &&)> &deliver);

  static std::vector<const GraphInfo *> Graphs(const Manifest &manifest, const Sampling &sampling, Size size);
  // Bytes that a request for `rows` pictures holds beside models. holds: whether whoever gets pictures keeps them.
  static int64_t Beside(const Manifest &manifest, Size size, size_t rows, bool holds);

 private:
  std::vector<float> Denoise(const Embeds &image_embeds, const Embeds &negatives, std::vector<float> latents, NoiseSource *source);
  void Decode(const std::vector<float> &latents, size_t start, size_t rows, const std::function<void(size_t, Image &&)> &deliver);
  size_t RowsAtOnce(size_t rows, bool draws) const;

  Models *models_;
  const Sampling &sampling_;
  Size size_;
  bool keeps_;
  std::function<void(size_t)> tick_;
  size_t channels_, pixels_;  // of the latents
};

}  // namespace kandinsky

#endif
