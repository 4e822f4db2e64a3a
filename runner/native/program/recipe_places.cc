#include "program/recipe_places.h"

#include <vector>

#include <unistd.h>

#include "bundle/bundle.h"
#include "common/errors.h"
#include "common/files.h"
#include "pictures/images.h"

namespace kandinsky {

namespace {

bool IsAddress(const std::string &name) { return name.find("://") != std::string::npos || name.rfind("//", 0) == 0; }

// Where a path out of a recipe may lie: as it was given, or relative to the folder of the recipe's picture.
std::vector<std::string> Places(const std::string &name, const Recipe &recipe, const std::string &picture) {
  std::vector<std::string> places{TextAsPath(name)};
  const auto beside = recipe.beside.find(name);
  if (beside != recipe.beside.end() && !IsAddress(beside->second)) {
    places.push_back(FolderOf(picture) + "/" + TextAsPath(beside->second));
  }
  return places;
}

}  // namespace

std::string BundleOf(const Recipe &recipe, const std::string &picture, bool trust) {
  std::string found;
  for (const auto &place : Places(recipe.bundle, recipe, picture)) {
    if (IsAddress(recipe.bundle) || access((place + "/" + kManifestName).c_str(), R_OK) != 0) {
      continue;
    }
    if (Bundle(place, Check::kNever, nullptr).sha256() == recipe.bundle_sha256) {
      return place;
    }
    found = found.empty() ? place : found;
  }
  if (found.empty()) {
    throw UserError(recipe.bundle + ", the bundle that the recipe in " + picture + " names, is not here: give the BUNDLE");
  }
  if (!trust) {
    throw UserError(picture + " has a recipe that names what should not be opened unseen: " + found + " is another bundle than the "
                    "picture was made with: give others in their place, or --trust-recipe if you trust who made it");
  }
  return found;
}

std::string UsedPicture(const Json &named, const Recipe &recipe, const std::string &picture, const std::string &option, bool trust) {
  const std::string instead = ": give it with " + option, name = named.value("image", ""), sha256 = named.value("sha256", "");
  if (name.empty()) {
    throw UserError(picture + " was made from a picture in memory" + instead);
  }
  std::string found;
  for (const auto &place : Places(name, recipe, picture)) {
    if (IsAddress(name) || access(place.c_str(), R_OK) != 0) {
      continue;
    }
    if (!sha256.empty() && PixelsSha256(ReadImage(place)) == sha256) {
      return place;
    }
    found = found.empty() ? place : found;
  }
  if (found.empty()) {
    throw UserError(name + ", a picture that the recipe in " + picture + " names, is not here" + instead);
  }
  if (!sha256.empty()) {
    throw UserError(found + " is not the picture that was used" + instead);
  }
  if (!trust) {
    throw UserError("the recipe does not say what the picture " + found + " must be: give others in its place, or --trust-recipe if "
                    "you trust who made it");
  }
  return found;
}

}  // namespace kandinsky
