#include "diffusion/noise.h"

#include <algorithm>

namespace kandinsky {

namespace {

class OfGenerator : public NoiseSource {
 public:
  explicit OfGenerator(std::unique_ptr<Generator> generator) : generator_(std::move(generator)) {}

  std::vector<float> Draw(size_t rows, size_t size) override {
    std::vector<float> noise(rows * size);
    generator_->Normal(noise.data(), noise.size());
    return noise;
  }
  std::shared_ptr<NoiseSource> Copy() const override { return std::make_shared<OfGenerator>(generator_->Copy()); }

 private:
  std::unique_ptr<Generator> generator_;
};

class OfBatch : public NoiseSource {
 public:
  OfBatch(std::shared_ptr<NoiseSource> source, size_t start, size_t stop, size_t rows)
      : source_(std::move(source)), start_(start), stop_(stop), rows_(rows) {}

  std::vector<float> Draw(size_t rows, size_t size) override {
    asked = true;
    const size_t group = stop_ - start_, parts = rows / group;
    const std::vector<float> all = source_->Draw(parts * rows_, size);
    std::vector<float> noise;
    noise.reserve(rows * size);
    for (size_t part = 0; part < parts; ++part) {
      const auto first = all.begin() + static_cast<std::ptrdiff_t>((part * rows_ + start_) * size);
      noise.insert(noise.end(), first, first + static_cast<std::ptrdiff_t>(group * size));
    }
    return noise;
  }
  std::shared_ptr<NoiseSource> Copy() const override { return std::make_shared<OfBatch>(source_->Copy(), start_, stop_, rows_); }

  bool asked = false;

 private:
  std::shared_ptr<NoiseSource> source_;
  size_t start_, stop_, rows_;
};

}  // namespace

std::shared_ptr<NoiseSource> SourceOf(std::unique_ptr<Generator> generator) {
  return std::make_shared<OfGenerator>(std::move(generator));
}

std::shared_ptr<NoiseSource> RowsOfBatch(std::shared_ptr<NoiseSource> source, size_t start, size_t stop, size_t rows) {
  return std::make_shared<OfBatch>(std::move(source), start, stop, rows);
}

std::shared_ptr<NoiseSource> SharedBatch::Group(size_t start, size_t stop) {
  if (stop - start == rows_) {
    return source_;
  }
  const std::shared_ptr<NoiseSource> source = next_;
  next_ = source->Copy();
  group_ = RowsOfBatch(source, start, stop, rows_);
  return group_;
}

bool SharedBatch::asked() const {
  const auto *group = dynamic_cast<const OfBatch *>(group_.get());
  return group != nullptr && group->asked;
}

}  // namespace kandinsky
