// Pictures to the image encoder's pixel values: runner/inputs/preprocessing.py, which is transformers' CLIPImageProcessor.
#pragma once

#include <array>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "pictures/images.h"
#include "inputs/resample.h"

namespace kandinsky {

class ImageProcessor {
 public:
  // A `preprocessor_config.json`. UserError that names a key or a value that is not known, or not implemented here.
  explicit ImageProcessor(const nlohmann::json &config);

  // The pixel values of a picture, (1, 3, height, width).
  struct Pixels {
    int height, width;
    std::vector<float> values;
  };
  Pixels operator()(const Image &image) const;

 private:
  bool resize_, crop_, rescale_, normalize_;
  std::vector<int64_t> size_, crop_size_;  // (shortest edge,) or (height, width)
  Filter filter_;
  double scale_;
  std::array<float, 3> mean_, std_;
};

}  // namespace kandinsky
