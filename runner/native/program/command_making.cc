// generate and interpolate: their options.

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "common/errors.h"
#include "program/command_line.h"
#include "program/making.h"

namespace kandinsky {

namespace {

void AddOptions(CLI::App *command, const std::shared_ptr<Arguments> &arguments, const std::string &output) {
  Arguments *to = arguments.get();
  to->output = output;
  command->add_option("-m,--model", to->model, "the bundle, in place of the first word");
  command->add_option("-n,--negative-prompt", to->negative_prompt, "what to keep away from")->each([to](const std::string &) {
    to->has_negative = true;
  });
  command->add_option("--like", to->like, "make the picture in FILE again, from the recipe in it; options given here replace its own");
  command->add_flag("--trust-recipe", to->trust, "with --like, open whatever the recipe names")->disable_flag_override();
  command->add_option("--steps", to->steps, "denoising steps of the decoder");
  command->add_option("--prior-steps", to->prior_steps, "denoising steps of the prior");
  command->add_option("--guidance-scale,--cfg-scale", to->guidance_scale, "guidance of the decoder; 1 switches it off");
  command->add_option("--prior-guidance-scale", to->prior_guidance_scale, "guidance of the prior");
  command->add_option("--guidance-rescale", to->guidance_rescale, "0 to 1: how far to take back the glare of a high guidance scale");
  command->add_option("--guidance-interval", to->guidance_interval, "guide only this share of the decoder's steps: START STOP")->expected(2);
  command->add_option("--scheduler,--sampling-method", to->scheduler, "sampler of the decoder: checkpoint, a class name of diffusers, or a "
                      "short name such as dpmpp-2m-karras, ddim, ddpm, unclip, euler");
  command->add_option("-b,--images,--batch-count", to->pictures, "pictures of each prompt (default 1)");
  command->add_option("-s,--seed", to->seed, "seed of the noise; without it one is drawn");
  command->add_option("--rng", to->rng, "what makes noise of the seed: numpy (default), numpy-legacy, torch");
  command->add_option("--size", to->size, "HEIGHTxWIDTH in pixels, one of the bundle's sizes");
  command->add_option("-W,--width", to->width, "of the picture, in pixels");
  command->add_option("-H,--height", to->height, "of the picture, in pixels");
  command->add_option("-o,--output", to->output, "picture file, a PNG (default " + output + "); several are numbered");
  command->add_flag("--grid", to->grid, "put all pictures into one file")->disable_flag_override();
  command->add_flag("-q,--quiet", to->quiet, "no progress")->disable_flag_override();
  AddThreadsAndPrecision(command, &to->engine);
  command->add_flag("--keep-loaded", to->engine.keep_loaded, "keep all models in memory between stages, or refuse")->disable_flag_override();
  command->add_option("--memory", to->engine.memory, "stay below this much memory, for example 2GB (default: what the machine has left)");
  command->add_option("--check", to->engine.check, "when to hash files that are loaded: once (default), always, never");
  command->add_flag("--plan", to->plan, "only say what memory each stage would need")->disable_flag_override();
  command->add_flag("--verify", to->verify, "first check that the bundle computes what it should here")->disable_flag_override();
  command->callback([arguments] { Make(*arguments); });
}

// Options for what a request brings beside its subject. also: other names of --init-image.
void AddPictures(CLI::App *command, Arguments *to, const std::string &also) {
  const auto add = [command, to](const std::string &options, const char *field, const char *help) {
    command->add_option_function<std::string>(options, [to, field](const std::string &file) { to->brought[field] = file; }, help);
  };
  add("-i,--init-image" + also, "image", "the picture that the diffusion starts from");
  add("--mask", "mask_image", "paint that picture anew where the mask is white and keep the rest (needs an inpainting decoder)");
  command->add_flag("--paste", to->paste, "with --mask, put the pixels of what is kept back as they were")->disable_flag_override();
  add("--hint", "hint", "a picture of the depth, near bright (needs a depth decoder)");
  command->add_option("--strength", to->strength, "above 0 to 1: how much of the picture is made anew, as a share of the steps (default 0.3)");
}

void AddItems(CLI::App *command, Arguments *to, bool text) {
  command->add_option_function<std::vector<std::string>>(text ? "--text" : "--image", [to, text](const std::vector<std::string> &values) {
    if (values.size() % 2 != 0) {
      throw UserError("'" + values.back() + "' has no weight: each " + (text ? "--text" : "--image") + " takes two values");
    }
    for (size_t i = 0; i + 1 < values.size(); i += 2) {
      char *end = nullptr;
      const double weight = std::strtod(values[i + 1].c_str(), &end);
      if (values[i + 1].empty() || *end != '\0') {
        throw UserError("the weight '" + values[i + 1] + "' is not a number");
      }
      to->items.push_back({text, {values[i], weight}});
    }
  }, text ? "TEXT WEIGHT: a text and its weight" : "FILE WEIGHT: a picture and its weight")
    ->type_size(2)->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)->trigger_on_parse();
}

}  // namespace

void AddMaking(CLI::App *app) {
  const auto generate = std::make_shared<Arguments>(), mix = std::make_shared<Arguments>();
  generate->task = "text2image";
  mix->task = "interpolate";
  CLI::App *command = app->add_subcommand("generate", "make pictures from prompts");
  command->add_option("BUNDLE PROMPT", generate->words, "folder that kandinsky-mindir export wrote, and what to draw, in words");
  command->add_option("-p,--prompt", generate->prompts, "what to draw, in place of a word")->expected(1)->take_all();
  AddPictures(command, generate.get(), ",--image");
  AddOptions(command, generate, "picture.png");
  command = app->add_subcommand("interpolate", "make pictures from a weighted mix of texts and pictures");
  command->add_option("BUNDLE", mix->words, "folder that kandinsky-mindir export wrote");
  AddItems(command, mix.get(), true);
  AddItems(command, mix.get(), false);
  command->add_option("--negative-prior-prompt", mix->negative_prior_prompt, "what the prior keeps away from")
    ->each([to = mix.get()](const std::string &) { to->has_negative_prior = true; });
  AddPictures(command, mix.get(), "");
  AddOptions(command, mix, "mix.png");
}

}  // namespace kandinsky
