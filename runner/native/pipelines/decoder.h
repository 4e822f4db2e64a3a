// Image embeddings to pictures: diffusion with the UNet of a decoder, then the MoVQ decoder (runner/pipelines/decoder.py).

#ifndef KANDINSKY_MINDIR_DECODER_H
#define KANDINSKY_MINDIR_DECODER_H

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "diffusion/diffusion.h"
#include "pipelines/conditioning.h"
#include "pipelines/encoders.h"
#include "pictures/images.h"
#include "pipelines/prior.h"

namespace kandinsky {

class Decoder {
 public:
  // size: (height, width) of the pictures. given: what they are made of beside embeddings. keeps: whether models stay loaded
  // from one to the next. tick: called after each step, with the number of rows that took it.
  Decoder(Models *models, const DecoderKind &kind, const Sampling &sampling, Size size, Given given, bool keeps,
          std::function<void(size_t)> tick);

  // Pictures one after another, each given to `deliver` with its number. No model is held meanwhile.
  void Make(const ImageEmbeds &embeds, const std::shared_ptr<NoiseSource> &source,
            const std::function<void(size_t, Image &&)> &deliver);

  static std::vector<const GraphInfo *> Graphs(const Manifest &manifest, const DecoderKind &kind, const Sampling &sampling, Size size);
  // Bytes that a request for `rows` pictures holds beside models. holds: whether whoever gets pictures keeps them.
  static int64_t Beside(const Manifest &manifest, const DecoderKind &kind, Size size, size_t rows, bool holds);

 private:
  std::vector<float> Denoise(const Embeds &image_embeds, const Embeds &negatives, std::vector<float> latents, NoiseSource *source,
                             size_t start);
  void Decode(const std::vector<float> &latents, size_t start, size_t rows, const std::function<void(size_t, Image &&)> &deliver);
  size_t RowsAtOnce(size_t rows, bool draws) const;

  Models *models_;
  const DecoderKind &kind_;
  const Sampling &sampling_;
  Size size_;
  bool keeps_;
  std::function<void(size_t)> tick_;
  size_t channels_, pixels_;  // of the latents
  Conditioning conditioning_;
};

}  // namespace kandinsky

#endif
