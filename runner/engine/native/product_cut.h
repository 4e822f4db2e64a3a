// How a product of (batch, rows, depth) and (batch, depth, columns) is cut into blocks, one oneDNN product each.
//
// A task is what a thread takes: a block, or some below each other, which share their columns of the right side. Where the
// columns are cut, a block can be computed beside its place, as a matrix of its own: then it has no more rows than caches hold.

#ifndef KANDINSKY_MINDIR_PRODUCT_CUT_H
#define KANDINSKY_MINDIR_PRODUCT_CUT_H

#include <algorithm>
#include <cstdint>

struct ProductCut {
  // A block of the result: the numbers of its rows and columns among all blocks, where it begins, and its size.
  struct Block {
    std::int64_t row_part, column_part, row, column, rows, columns;
  };

  ProductCut() = default;
  // beside: whether blocks are computed beside their place.
  ProductCut(int shares, std::int64_t batch, std::int64_t rows, std::int64_t columns, bool beside)
    : beside_(beside), rows_(rows), columns_(columns) {
    std::int64_t row_tasks = 1;
    if (rows < columns) {  // the side that is longer is cut first: what lies along the other one is read by fewer blocks
      column_parts = Parts(shares, batch, columns, kFewestColumns);
      column_parts = beside ? column_parts : std::max(column_parts, Count(columns, kMostColumns));
      row_tasks = Parts(shares, batch * column_parts, rows, kFewestRows);
    } else {
      row_tasks = Parts(shares, batch, rows, kFewestRows);
      column_parts = Parts(shares, batch * row_tasks, columns, kFewestColumns);
    }
    column_step = Step(columns, column_parts);
    column_parts = Count(columns, column_step);
    const std::int64_t rows_of_task = Step(rows, row_tasks);
    row_step = beside && column_parts > 1 ? Count(rows_of_task, Count(rows_of_task, kMostRows)) : rows_of_task;
    row_parts = Count(rows, row_step);
    together = Count(rows_of_task, row_step);
    tasks = batch * Count(row_parts, together) * column_parts;
  }

  // Into how many parts a side is cut, so that there are enough blocks for all threads.
  static std::int64_t Parts(std::int64_t wanted, std::int64_t there, std::int64_t side, std::int64_t fewest) {
    return std::clamp<std::int64_t>(Count(wanted, there), 1, std::max<std::int64_t>(1, side / fewest));
  }
  static std::int64_t Count(std::int64_t side, std::int64_t step) { return (side + step - 1) / step; }
  // The size of all parts but the last one.
  static std::int64_t Step(std::int64_t side, std::int64_t parts) {
    return std::min(side, Count(Count(side, parts), kMultiple) * kMultiple);
  }

  Block At(std::int64_t row_part, std::int64_t column_part) const {
    const std::int64_t row = row_part * row_step, column = column_part * column_step;
    return {row_part, column_part, row, column, std::min(row_step, rows_ - row), std::min(column_step, columns_ - column)};
  }
  // Whether a block is computed in its place. It is where its rows follow each other there.
  bool InPlace(const Block &block) const { return !beside_ || column_parts == 1 || block.rows == 1; }

  static constexpr std::int64_t kFewestRows = 32, kFewestColumns = 64;  // of a task, below which oneDNN gets slow
  static constexpr std::int64_t kMostRows = 256;     // of a block beside its place
  static constexpr std::int64_t kMostColumns = 512;  // of a block in its place: with 2048 it takes a twelfth longer
  static constexpr std::int64_t kMultiple = 16;

  std::int64_t row_parts = 1, column_parts = 1, row_step = 0, column_step = 0;
  std::int64_t together = 1, tasks = 1;  // blocks of a task; tasks

 private:
  bool beside_ = false;
  std::int64_t rows_ = 0, columns_ = 0;
};

#endif
