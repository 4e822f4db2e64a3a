// The options of a request, each checked in one place (runner/common/options.py). name: what errors call the value.

#ifndef KANDINSKY_MINDIR_OPTIONS_H
#define KANDINSKY_MINDIR_OPTIONS_H

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/json.h"
#include "bundle/manifest.h"

namespace kandinsky {

std::string Repr(const Json &value);  // as Python writes it, not longer than 80 characters

double AsNumber(const Json &value, const std::string &name);  // finite as float32, too
int64_t AsCount(const Json &value, const std::string &name, int64_t most = 0);  // at least 1, and at most `most`
int64_t AsPixels(const Json &value, const std::string &name);
double AsGuidanceScale(const Json &value, const std::string &name);  // not negative
double AsShare(const Json &value, const std::string &name);          // from 0 to 1
double AsStrength(const Json &value, const std::string &name);       // above 0, at most 1
std::pair<double, double> AsInterval(const Json &value, const std::string &name);
std::string AsText(const Json &value, const std::string &name);
std::vector<std::string> AsTexts(const Json &value, const std::string &name);  // a text or a list of texts

// The size in pixels that is made when height x width is asked for: sides rounded up to a multiple of the MoVQ's squared scale
// factor, as diffusers' pipeline_kandinsky2_2.py: downscale_height_and_width does.
Size AsSize(int64_t height, int64_t width, int64_t scale_factor);

}  // namespace kandinsky

#endif
