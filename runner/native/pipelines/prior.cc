#include "pipelines/prior.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "common/errors.h"

namespace kandinsky {

Prior::Prior(Models *models, const Tokenizer &tokenizer, const Sampling &sampling, std::function<void(size_t)> tick)
    : models_(models), tokenizer_(tokenizer), sampling_(sampling), tick_(std::move(tick)),
      size_(static_cast<size_t>(models->bundle().EmbeddingSize())),
      most_contexts_(kMostContexts / TextBytes(models->bundle()).second) {
  if (sampling.learned_variance) {
    throw UserError("the model gives " + std::to_string(size_) + " channels, but variance_type learned or learned_range needs " +
                    std::to_string(2 * size_) + ": set variance_type to fixed_small");
  }
}

ImageEmbeds Prior::EmbedPrompts(const std::vector<std::string> &prompts, const std::vector<std::string> *negatives,
                                const std::shared_ptr<NoiseSource> &source) {
  const size_t count = prompts.size() * sampling_.images, parts = negatives == nullptr ? 1 : 2;
  const std::vector<Row> rows = RowsFor(prompts, negatives);
  const std::vector<float> latents = InitialLatents(*sampling_.schedule, source.get(), rows.size(), size_);
  SharedBatch batch(source, count);
  const size_t at_once = PromptsAtOnce(prompts, negatives) * sampling_.images;
  std::vector<Run> runs;
  for (size_t start = 0; start < count; start += at_once) {
    const size_t stop = std::min(start + at_once, count);
    Run run;
    for (size_t part = 0; part < parts; ++part) {
      for (size_t row = part * count + start; row < part * count + stop; ++row) {
        run.rows.push_back(rows[row]);
        run.latents.insert(run.latents.end(), latents.begin() + static_cast<std::ptrdiff_t>(row * size_),
                           latents.begin() + static_cast<std::ptrdiff_t>((row + 1) * size_));
      }
    }
    run.source = batch.Group(start, stop);
    runs.push_back(std::move(run));
  }
  ImageEmbeds found;
  for (const auto &embeds : EmbedRuns(runs)) {
    const auto middle = embeds.begin() + static_cast<std::ptrdiff_t>(embeds.size() / parts);
    found.image_embeds.insert(found.image_embeds.end(), embeds.begin(), middle);
    found.negative_image_embeds.insert(found.negative_image_embeds.end(), middle, embeds.end());
  }
  if (negatives == nullptr) {
    found.negative_image_embeds = ZeroImageEmbeds(count);
  }
  return found;
}

ImageEmbeds Prior::Mix(const std::vector<MixItem> &items, const std::string &negative, const std::string *negative_prior,
                       const std::shared_ptr<NoiseSource> &source) {
  const size_t images = sampling_.images;
  const bool plain = negative.empty() && negative_prior == nullptr;
  const std::vector<std::string> negatives = negative_prior == nullptr ? std::vector<std::string>() : std::vector<std::string>{*negative_prior};
  std::vector<Run> runs;
  std::vector<std::vector<float>> pictures;
  const auto add = [&](const std::string &text) {
    runs.push_back({RowsFor({text}, negative_prior == nullptr ? nullptr : &negatives), source, {}});
  };
  for (const auto &item : items) {
    if (item.pixel_values.empty()) {
      add(item.text);
    } else {
      pictures.push_back(item.pixel_values);
    }
  }
  if (!plain) {
    add(negative);
  }
  const std::vector<Embeds> embeds = EmbedRuns(runs);
  const Embeds embedded = EmbedPictures(models_, pictures);
  ImageEmbeds found{Embeds(images, std::vector<float>(size_, 0.0F)), {}};
  size_t text = 0, picture = 0;
  for (const auto &item : items) {
    const bool is_text = item.pixel_values.empty();
    const auto weight = static_cast<float>(item.weight);
    for (size_t image = 0; image < images; ++image) {
      const std::vector<float> &embedding = is_text ? embeds[text][image] : embedded[picture];
      for (size_t i = 0; i < size_; ++i) {
        found.image_embeds[image][i] += embedding[i] * weight;
      }
    }
    ++(is_text ? text : picture);
  }
  if (plain) {
    // The reference runs the prior once more and throws the result away; its noise is drawn here.
    std::vector<float> latents = InitialLatents(*sampling_.schedule, source.get(), images, size_);
    const std::vector<float> zeros(latents.size(), 0.0F);
    Diffuse(sampling_, {images, size_, 1}, &latents, [&zeros](const auto &, size_t) { return zeros; }, source.get(), "prior", [] {});
    found.negative_image_embeds = ZeroImageEmbeds(images);
  } else {
    const auto first = embeds.back().begin() + (negative.empty() ? static_cast<std::ptrdiff_t>(images) : 0);
    found.negative_image_embeds.assign(first, first + static_cast<std::ptrdiff_t>(images));
  }
  return found;
}

std::vector<Prior::Row> Prior::RowsFor(const std::vector<std::string> &prompts, const std::vector<std::string> *negatives) const {
  const size_t images = sampling_.images;
  const bool guided = sampling_.guidance.On();
  std::vector<Row> rows;
  const auto add = [&](const std::vector<std::string> &texts, const std::vector<std::string> *unconditional) {
    for (size_t i = 0; i < texts.size(); ++i) {
      const std::string &other = unconditional == nullptr ? "" : (*unconditional)[i];
      rows.insert(rows.end(), images, guided ? Row{other, texts[i]} : Row{texts[i]});
    }
  };
  add(prompts, negatives);
  if (negatives != nullptr) {
    add(*negatives, negatives);
  }
  return rows;
}

std::vector<Embeds> Prior::EmbedRuns(const std::vector<Run> &runs) {
  std::vector<Embeds> embeds;
  if (runs.empty()) {
    return embeds;
  }
  const auto texts_of = [](const Run &run) {
    std::vector<std::string> texts;
    for (const auto &row : run.rows) {
      texts.insert(texts.end(), row.begin(), row.end());
    }
    return Distinct(texts);
  };
  std::vector<std::string> all;
  for (const auto &run : runs) {
    const auto texts = texts_of(run);
    all.insert(all.end(), texts.begin(), texts.end());
  }
  const Texts texts = EncodeTexts(models_, tokenizer_, all);
  for (size_t first = 0; first < runs.size();) {  // as many together as memory holds the contexts of
    std::vector<std::string> wanted = texts_of(runs[first]);
    size_t last = first + 1;
    for (; last < runs.size(); ++last) {
      std::vector<std::string> more = wanted;
      const auto further = texts_of(runs[last]);
      more.insert(more.end(), further.begin(), further.end());
      more = Distinct(more);
      if (static_cast<int64_t>(more.size()) > most_contexts_) {
        break;
      }
      wanted = more;
    }
    const Contexts contexts = PriorContexts(models_, texts, wanted);
    const auto prior = models_->Take("prior", sampling_.guidance.On() ? 2 : 1);
    for (; first < last; ++first) {
      embeds.push_back(Denoise(runs[first], texts, contexts, prior.get()));
    }
  }
  return embeds;
}

Embeds Prior::Denoise(const Run &run, const Texts &texts, const Contexts &contexts, Models::Lease *prior) {
  struct Conditions {
    std::vector<float> context, text_mask;
  };
  const Bundle &bundle = models_->bundle();
  const GraphInfo &graph = bundle.manifest().Find("prior");
  const auto layers = static_cast<size_t>(graph.Input("context").shape.at(0));
  std::map<Row, Conditions> inputs;
  for (const auto &row : std::set<Row>(run.rows.begin(), run.rows.end())) {
    Conditions &conditions = inputs[row];
    for (size_t layer = 0; layer < layers; ++layer) {  // contexts are joined on axis 1, masks on axis 0
      for (const auto &text : row) {
        const std::vector<float> &context = contexts.at(text);
        const auto part = static_cast<std::ptrdiff_t>(context.size() / layers), start = static_cast<std::ptrdiff_t>(layer) * part;
        conditions.context.insert(conditions.context.end(), context.begin() + start, context.begin() + start + part);
      }
    }
    for (const auto &text : row) {
      const std::vector<float> &mask = texts.at(text).text_mask;
      conditions.text_mask.insert(conditions.text_mask.end(), mask.begin(), mask.end());
    }
  }
  std::vector<float> latents = run.latents;
  if (latents.empty()) {
    latents = InitialLatents(*sampling_.schedule, run.source.get(), run.rows.size(), size_);
  }
  const int64_t width = graph.Input("time_proj").shape.at(1);
  const auto predict = [&](const std::vector<float> &scaled, size_t index) {
    const auto time_proj = TimestepEmbedding(sampling_.schedule->timesteps[index], width, bundle.manifest().settings.at("prior_time_proj"));
    std::vector<float> predicted;
    for (size_t row = 0; row < run.rows.size(); ++row) {
      const auto first = scaled.begin() + static_cast<std::ptrdiff_t>(row * size_);
      std::vector<float> latent;
      for (size_t side = 0; side < run.rows[row].size(); ++side) {
        latent.insert(latent.end(), first, first + static_cast<std::ptrdiff_t>(size_));
      }
      const Conditions &conditions = inputs.at(run.rows[row]);
      const std::vector<float> embeds = prior->Run({{"latents", latent}, {"time_proj", time_proj}, {"context", conditions.context},
                                                    {"text_mask", conditions.text_mask}}).at(0);
      const float *last = embeds.data() + embeds.size() - size_;
      const std::vector<float> combined = sampling_.guidance.On() ? sampling_.guidance.Combine(embeds.data(), last, size_)
                                                                  : std::vector<float>(last, last + size_);
      predicted.insert(predicted.end(), combined.begin(), combined.end());
    }
    return predicted;
  };
  Diffuse(sampling_, {run.rows.size(), size_, 1}, &latents, predict, run.source.get(), "prior", [&] { tick_(run.rows.size()); });
  const std::vector<float> &std = bundle.Constant("clip_std"), &mean = bundle.Constant("clip_mean");
  Embeds embeds;
  for (size_t row = 0; row < run.rows.size(); ++row) {
    std::vector<float> embedding(size_);
    for (size_t i = 0; i < size_; ++i) {
      embedding[i] = latents[row * size_ + i] * std[i] + mean[i];
    }
    embeds.push_back(std::move(embedding));
  }
  return embeds;
}

size_t Prior::PromptsAtOnce(const std::vector<std::string> &prompts, const std::vector<std::string> *negatives) const {
  std::vector<std::string> all = prompts;
  if (negatives != nullptr) {
    all.insert(all.end(), negatives->begin(), negatives->end());
  }
  all.emplace_back();
  if (static_cast<int64_t>(Distinct(all).size()) <= most_contexts_) {
    return prompts.size();
  }
  return static_cast<size_t>(std::max<int64_t>((most_contexts_ - 1) / (negatives == nullptr ? 1 : 2), 1));
}

Embeds Prior::ZeroImageEmbeds(size_t rows) const { return Embeds(rows, models_->bundle().Constant("zero_image_embeds")); }

}  // namespace kandinsky
