// A graph in pieces: models that run one after another, joined by the names of their tensors, as one.

#ifndef KANDINSKY_MINDIR_CHAIN_H
#define KANDINSKY_MINDIR_CHAIN_H

#include <functional>
#include <memory>
#include <vector>

#include "engine/engine.h"

namespace kandinsky {

// pieces: those in memory; one that is not there is loaded, by its number, when its turn comes in a run, each time.
std::unique_ptr<Model> MakeChain(const GraphInfo &graph, std::vector<std::unique_ptr<Model>> pieces,
                                 std::function<std::unique_ptr<Model>(size_t)> load);

}  // namespace kandinsky

#endif
