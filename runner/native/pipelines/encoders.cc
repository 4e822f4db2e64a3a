#include "pipelines/encoders.h"

#include <algorithm>
#include <memory>
#include <set>

#include "diffusion/diffusion.h"

namespace kandinsky {

Texts EncodeTexts(Models *models, const Tokenizer &tokenizer, const std::vector<std::string> &texts) {
  const Bundle &bundle = models->bundle();
  Texts encoded;
  std::unique_ptr<Models::Lease> encoder;
  for (const auto &text : Distinct(texts)) {
    if (text.empty()) {
      encoded[text] = {bundle.Constant("empty_text_embeds"), bundle.Constant("empty_text_hidden_states"),
                       bundle.Constant("empty_text_mask")};
      continue;
    }
    const Tokens tokens = tokenizer.Encode(text);
    if (tokens.truncated) {
      models->warn()("the prompt has more than " + std::to_string(tokens.input_ids.size()) + " tokens; this part was cut: '" +
                     *tokens.truncated + "'");
    }
    if (!encoder) {
      encoder = models->Take("text_encoder");
    }
    const std::vector<int32_t> end{tokens.end_position};
    Outputs outputs = encoder->Run({{"input_ids", tokens.input_ids}, {"end_position", end}});
    RequireFinite("text_encoder", outputs);
    encoded[text] = {std::move(outputs.at(0)), std::move(outputs.at(1)), tokens.mask};
  }
  return encoded;
}

Contexts PriorContexts(Models *models, const Texts &texts, const std::vector<std::string> &wanted) {
  const auto run = models->Take("prior_context");
  Contexts contexts;
  for (const auto &name : Distinct(wanted)) {
    const Text &text = texts.at(name);
    Outputs outputs = run->Run({{"text_embeds", text.text_embeds}, {"text_hidden_states", text.text_hidden_states},
                                {"text_mask", text.text_mask}});
    RequireFinite("prior_context", outputs);
    contexts[name] = std::move(outputs.at(0));
  }
  return contexts;
}

std::vector<std::vector<float>> EmbedPictures(Models *models, const std::vector<std::vector<float>> &pictures) {
  std::vector<std::vector<float>> embeds;
  if (pictures.empty()) {
    return embeds;
  }
  const auto run = models->Take("image_encoder");
  for (const auto &picture : pictures) {
    const auto same = std::find(pictures.begin(), pictures.end(), picture) - pictures.begin();
    if (static_cast<size_t>(same) < embeds.size()) {
      const std::vector<float> known = embeds[static_cast<size_t>(same)];
      embeds.push_back(known);
      continue;
    }
    Outputs outputs = run->Run({{"pixel_values", picture}});
    RequireFinite("image_encoder", outputs);
    embeds.push_back(std::move(outputs.at(0)));
  }
  return embeds;
}

std::vector<UnetContext> UnetContexts(Models *models, const std::string &unet, const std::vector<std::vector<float>> &image_embeds,
                                      const std::vector<std::vector<float>> *negatives) {
  std::map<std::vector<float>, Outputs> known;
  const auto run = models->Take(unet + "_context");
  for (const auto *side : {&image_embeds, negatives}) {
    for (const auto &embeds : side == nullptr ? std::vector<std::vector<float>>() : *side) {
      if (known.count(embeds) == 0) {
        Outputs outputs = run->Run({{"image_embeds", embeds}});
        RequireFinite(unet + "_context", outputs);
        known[embeds] = std::move(outputs);
      }
    }
  }
  std::vector<UnetContext> contexts;
  for (size_t row = 0; row < image_embeds.size(); ++row) {
    UnetContext context;
    const auto add = [&](const std::vector<float> &embeds) {  // joined on axis 0
      const Outputs &outputs = known.at(embeds);
      context.time_addition.insert(context.time_addition.end(), outputs.at(0).begin(), outputs.at(0).end());
      context.added_kv.insert(context.added_kv.end(), outputs.at(1).begin(), outputs.at(1).end());
    };
    if (negatives != nullptr) {
      add((*negatives)[row]);
    }
    add(image_embeds[row]);
    contexts.push_back(std::move(context));
  }
  return contexts;
}

std::vector<std::vector<float>> EncodeImages(Models *models, const std::vector<std::vector<float>> &images, Size size) {
  const auto run = models->Take("movq_encoder", 1, size);
  std::vector<std::vector<float>> latents;
  for (const auto &image : images) {
    Outputs outputs = run->Run({{"image", image}});
    RequireFinite("movq_encoder", outputs);
    latents.push_back(std::move(outputs.at(0)));
  }
  return latents;
}

std::pair<int64_t, int64_t> TextBytes(const Bundle &bundle) {
  const GraphInfo &graph = bundle.manifest().Find("prior_context");
  std::pair<int64_t, int64_t> bytes{0, 0};
  for (const auto &tensor : graph.inputs) {
    bytes.first += 4 * Elements(tensor.shape);
  }
  for (const auto &tensor : graph.outputs) {
    bytes.second += 4 * Elements(tensor.shape);
  }
  return bytes;
}

std::vector<std::string> Distinct(const std::vector<std::string> &texts) {
  std::vector<std::string> distinct;
  std::set<std::string> seen;
  for (const auto &text : texts) {
    if (seen.insert(text).second) {
      distinct.push_back(text);
    }
  }
  return distinct;
}

}  // namespace kandinsky
