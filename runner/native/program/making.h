// What generate and interpolate are asked for on the command line, and how it becomes pictures on disk.

#ifndef KANDINSKY_MINDIR_MAKING_H
#define KANDINSKY_MINDIR_MAKING_H

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "program/command_line.h"

namespace kandinsky {

struct Arguments {
  std::string task;
  std::vector<std::string> words, prompts, texts, images;  // words: BUNDLE, then prompts; texts, images: with their weights
  std::string model, negative_prompt, negative_prior_prompt, like, output, size, scheduler, seed, rng;
  bool has_negative = false, has_negative_prior = false, trust = false, grid = false, quiet = false, plan = false, verify = false;
  std::optional<int64_t> steps, prior_steps, pictures, width, height;
  std::optional<double> guidance_scale, prior_guidance_scale, guidance_rescale, strength;
  std::map<std::string, std::string> brought;  // from a field of a request to the file of its picture
  bool paste = false;
  std::vector<double> guidance_interval;
  std::vector<std::pair<bool, std::pair<std::string, double>>> items;  // whether a text, what, its weight: in order
  EngineArguments engine;
};

void Make(const Arguments &arguments);

}  // namespace kandinsky

#endif
