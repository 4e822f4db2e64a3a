// Where noise comes from, and how a batch that is made group by group gets the noise that it has when it is made at once
// (runner/diffusion/noise.py).

#ifndef KANDINSKY_MINDIR_NOISE_H
#define KANDINSKY_MINDIR_NOISE_H

#include <memory>
#include <vector>

#include "diffusion/generators.h"

namespace kandinsky {

// Standard normal numbers, a tensor of (rows, size) at a time.
class NoiseSource {
 public:
  virtual ~NoiseSource() = default;
  virtual std::vector<float> Draw(size_t rows, size_t size) = 0;
  virtual std::shared_ptr<NoiseSource> Copy() const = 0;
};

std::shared_ptr<NoiseSource> SourceOf(std::unique_ptr<Generator> generator);

// The noise that pictures `start` to `stop` of `rows` get of `source` when all are made in one batch. A batch may have several
// parts of `rows` each, one after the other, as prompts and negative prompts are.
std::shared_ptr<NoiseSource> RowsOfBatch(std::shared_ptr<NoiseSource> source, size_t start, size_t stop, size_t rows);

// A batch of `rows` pictures that is made group by group. The first group asks `source` for the noise of the whole batch, in
// the order of one run; the others ask a copy of the source as it was before that.
class SharedBatch {
 public:
  SharedBatch(std::shared_ptr<NoiseSource> source, size_t rows) : source_(source), next_(std::move(source)), rows_(rows) {}

  // The noise of pictures `start` to `stop`. A group draws all of its noise before the next is asked for.
  std::shared_ptr<NoiseSource> Group(size_t start, size_t stop);
  bool asked() const;  // whether the group before has asked for noise

 private:
  std::shared_ptr<NoiseSource> source_, next_, group_;
  size_t rows_;
};

}  // namespace kandinsky

#endif
