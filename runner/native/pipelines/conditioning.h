// What the pictures of a call begin with and are shown beside embeddings: a picture to start from, a mask, a depth hint
// (runner/pipelines/img2img.py, inpaint.py, controlnet.py).

#ifndef KANDINSKY_MINDIR_CONDITIONING_H
#define KANDINSKY_MINDIR_CONDITIONING_H

#include <map>
#include <utility>
#include <vector>

#include "diffusion/diffusion.h"
#include "inputs/conditions.h"
#include "loading/models.h"
#include "pictures/images.h"
#include "pipelines/request.h"

namespace kandinsky {

// The pictures that a request brings as models take them: one for all of its prompts, or one for each.
struct Given {
  std::vector<std::vector<float>> image, hint;
  std::vector<Mask> mask;
  bool paste = false;
  size_t each = 1;  // pictures of each prompt

  // Reads and resizes them. UserError for one that cannot be used.
  static Given Of(const Request &request, const Manifest &manifest, Size size);
};

// Of the pictures of a call, which count from 0.
class Conditioning {
 public:
  Conditioning(Models *models, const DecoderKind &kind, const Sampling &sampling, Size size, Given given);

  // The first latents of all `rows`; draws their noise. latents: the shape of one's, (channels, pixels).
  std::vector<float> First(NoiseSource *source, size_t rows, std::pair<size_t, size_t> latents);
  // Computes what the UNet is shown with pictures `start` to `stop`, which are denoised next.
  void Show(size_t start, size_t stop);
  const std::vector<float> *Map(size_t row) const;  // nullptr where the UNet is shown nothing
  // Puts what is kept of pictures from `start` on back into their latents after step `index`, as noisy as the next step takes it.
  void Keep(size_t start, size_t index, std::vector<float> *latents) const;
  // Puts the pixels of what is kept back into a finished picture, if that was asked for.
  void Paste(size_t row, Image *image) const;

 private:
  // The one of `many` that belongs to a picture.
  template <typename Value>
  const Value &At(const std::vector<Value> &many, size_t row) const {
    return many[many.size() == 1 ? 0 : row / given_.each];
  }
  std::vector<float> Mapped(Models::Lease *run, size_t row) const;

  Models *models_;
  const DecoderKind &kind_;
  const Sampling &sampling_;
  Size size_;
  Given given_;
  size_t channels_ = 0, pixels_ = 0;                 // of the latents
  std::vector<std::vector<float>> encoded_, keep_;   // of each given picture, and of each given mask
  std::vector<float> noise_;                         // of the first latents of all rows, at a standard deviation of 1
  std::map<size_t, std::vector<float>> maps_;        // of the first picture of each prompt, or of all
};

}  // namespace kandinsky

#endif
