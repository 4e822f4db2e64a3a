// Pictures, masks and depth hints as files have them, to what the decoder starts from or is guided by
// (runner/inputs/conditions.py). Sizes are (height, width); a picture of another size is resized.

#ifndef KANDINSKY_MINDIR_CONDITIONS_H
#define KANDINSKY_MINDIR_CONDITIONS_H

#include <cstdint>
#include <vector>

#include "bundle/manifest.h"
#include "pictures/images.h"

namespace kandinsky {

using Mask = std::vector<uint8_t>;  // (height, width), 1 to repaint

// (3, height, width) from -1 to 1, as the MoVQ encodes them.
std::vector<float> StartValues(const Image &image, Size size);

// (3, height, width) from 0 (far) to 1 (near).
std::vector<float> HintValues(const Image &image, Size size);

// What is white, from the middle gray on, is what to repaint.
Mask MaskOf(const Image &image, Size size);

// The latents that stay as they are (height, width), 1 for those, 0 for those to repaint. size: of `mask`. Each takes the nearest
// pixel; then each repainted one takes along six of its eight neighbors, as prepare_mask of the reference's inpainting does.
std::vector<float> KeptLatents(const Mask &mask, Size size, Size latents);

}  // namespace kandinsky

#endif
