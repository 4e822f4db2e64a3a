// Texts and pictures as the two diffusions take them (runner/pipelines/encoders.py).

#ifndef KANDINSKY_MINDIR_ENCODERS_H
#define KANDINSKY_MINDIR_ENCODERS_H

#include <map>
#include <string>
#include <vector>

#include "loading/models.h"
#include "inputs/tokenizer.h"

namespace kandinsky {

// A text after the text encoder, under the names of the prior's inputs.
struct Text {
  std::vector<float> text_embeds, text_hidden_states, text_mask;
};

using Texts = std::map<std::string, Text>;
using Contexts = std::map<std::string, std::vector<float>>;

// Each text encoded, once; the empty one is a constant of the bundle. Warns of what is cut off a text that is too long.
Texts EncodeTexts(Models *models, const Tokenizer &tokenizer, const std::vector<std::string> &texts);

// The prior's keys and values of each text.
Contexts PriorContexts(Models *models, const Texts &texts, const std::vector<std::string> &wanted);

// The image encoder's embedding of each of some pixel values; equal ones are embedded once.
std::vector<std::vector<float>> EmbedPictures(Models *models, const std::vector<std::vector<float>> &pictures);

// What the UNet needs of each embedding, after its negative where there are some.
struct UnetContext {
  std::vector<float> time_addition, added_kv;
};
std::vector<UnetContext> UnetContexts(Models *models, const std::string &unet, const std::vector<std::vector<float>> &image_embeds,
                                      const std::vector<std::vector<float>> *negatives);

// The latents of each of some pictures, (3, height, width) from -1 to 1, without quantization.
std::vector<std::vector<float>> EncodeImages(Models *models, const std::vector<std::vector<float>> &images, Size size);

// Bytes of a text after the text encoder, and of its context.
std::pair<int64_t, int64_t> TextBytes(const Bundle &bundle);

// Texts, each once, in order.
std::vector<std::string> Distinct(const std::vector<std::string> &texts);

}  // namespace kandinsky

#endif
