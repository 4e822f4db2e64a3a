// What a picture's recipe names, where it lies now, and whether it may be opened: a stranger may have written it
// (runner/pictures/trust.py).

#ifndef KANDINSKY_MINDIR_RECIPE_PLACES_H
#define KANDINSKY_MINDIR_RECIPE_PLACES_H

#include <string>

#include "pictures/recipe.h"

namespace kandinsky {

// picture: the file that the recipe is from. trust: whether all that it names may be opened.

// The bundle that it was made with. UserError unless it is that very one, or the recipe is trusted.
std::string BundleOf(const Recipe &recipe, const std::string &picture, bool trust);

// A picture that it was made from, `named` as a request names one. UserError, with the option to give another, for one that is
// not here, or not that very one.
std::string UsedPicture(const Json &named, const Recipe &recipe, const std::string &picture, const std::string &option, bool trust);

}  // namespace kandinsky

#endif
