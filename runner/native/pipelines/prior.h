// Texts, pictures and mixes of them to image embeddings: diffusion with the prior (runner/pipelines/prior.py).

#ifndef KANDINSKY_MINDIR_PRIOR_H
#define KANDINSKY_MINDIR_PRIOR_H

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "diffusion/diffusion.h"
#include "pipelines/encoders.h"

namespace kandinsky {

using Embeds = std::vector<std::vector<float>>;  // a row for each picture

struct ImageEmbeds {
  Embeds image_embeds, negative_image_embeds;
};

// An item of a mix, opened: a text, or the pixel values of a picture.
struct MixItem {
  std::string text;
  std::vector<float> pixel_values;  // empty: a text
  double weight = 1;
};

class Prior {
 public:
  // sampling: what is run; tick: called after each step, with the number of rows that took it.
  Prior(Models *models, const Tokenizer &tokenizer, const Sampling &sampling, std::function<void(size_t)> tick);

  // The embeddings of prompts, and of as many negative prompts (nullptr: the zero picture's).
  ImageEmbeds EmbedPrompts(const std::vector<std::string> &prompts, const std::vector<std::string> *negatives,
                           const std::shared_ptr<NoiseSource> &source);

  // Each item's embedding times its weight, summed. negative_prior: nullptr if there is none.
  ImageEmbeds Mix(const std::vector<MixItem> &items, const std::string &negative, const std::string *negative_prior,
                  const std::shared_ptr<NoiseSource> &source);

  // How many rows take how many steps in all: for progress.
  static size_t RowsOf(size_t pictures, bool negatives) { return pictures * (negatives ? 2 : 1); }

 private:
  using Row = std::vector<std::string>;  // the text of an embedding, after its unconditional text where it is guided
  struct Run {
    std::vector<Row> rows;
    std::shared_ptr<NoiseSource> source;
    std::vector<float> latents;  // empty: to be drawn
  };

  std::vector<Row> RowsFor(const std::vector<std::string> &prompts, const std::vector<std::string> *negatives) const;
  std::vector<Embeds> EmbedRuns(const std::vector<Run> &runs);
  Embeds Denoise(const Run &run, const Texts &texts, const Contexts &contexts, Models::Lease *prior);
  size_t PromptsAtOnce(const std::vector<std::string> &prompts, const std::vector<std::string> *negatives) const;
  Embeds ZeroImageEmbeds(size_t rows) const;

  Models *models_;
  const Tokenizer &tokenizer_;
  const Sampling &sampling_;
  std::function<void(size_t)> tick_;
  size_t size_;  // of an embedding
  int64_t most_contexts_;
};

constexpr int64_t kMostContexts = int64_t{1} << 29;  // bytes of texts' contexts that are in memory at once
constexpr int64_t kPriorRowCopies = 12;              // arrays of an embedding's size that a row takes

}  // namespace kandinsky

#endif
