// The sealed examples of a bundle, replayed (runner/upkeep/replay.py, runner/bundle/sealed_examples.py).

#ifndef KANDINSKY_MINDIR_VERIFY_H
#define KANDINSKY_MINDIR_VERIFY_H

#include <functional>
#include <optional>
#include <string>

#include "loading/models.h"
#include "pipelines/session.h"

namespace kandinsky {

// See Session::Verify. All files of the bundle are hashed first.
void Replay(Models *models, const std::string &part, std::optional<double> tolerance, const std::function<void(const Verdict &)> &tell);

}  // namespace kandinsky

#endif
