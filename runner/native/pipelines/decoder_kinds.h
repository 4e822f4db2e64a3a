// The decoders of a bundle, and which of them a request is for by the pictures that it brings (DECODERS of runner/tasks.py).

#ifndef KANDINSKY_MINDIR_DECODER_KINDS_H
#define KANDINSKY_MINDIR_DECODER_KINDS_H

#include <string>
#include <vector>

#include "bundle/manifest.h"

namespace kandinsky {

struct DecoderKind {
  std::vector<std::string> brings;  // names of a request's fields, in their order
  std::string kind;                 // of the decoder, as the manifest names it
  std::string unet;                 // the graph of its steps
  std::string map;                  // the graph of what the UNet is shown beside latents; "" if there is none

  bool Takes(const std::string &name) const;  // whether a picture of that name
  bool starts() const { return Takes("image") && !Takes("mask_image"); }  // from a picture
};

// The decoder for what a request brings; UserError if there is none.
const DecoderKind &KindOf(const std::vector<std::string> &brings);

// UserError unless a bundle, which lies at `path`, has such a decoder.
void RequireKind(const Manifest &manifest, const DecoderKind &kind, const std::string &path);

}  // namespace kandinsky

#endif
