// A `.ms` file in memory of which parts lie in other files, and those files.

#ifndef KANDINSKY_MINDIR_MAPPED_WEIGHTS_H
#define KANDINSKY_MINDIR_MAPPED_WEIGHTS_H

#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>

#include "lean_weights.h"
#include "model_graph.h"
#include "packed_weights.h"
#include "stored_weights.h"
#include "weight_files.h"

struct MappedWeights {
  // file: descriptor of the `.ms` file, in memory. table: a file of lines "raw|packed POSITION LENGTH OFFSET PATH" and "stored
  // POSITION LENGTH ..." (runner/bundle/ms_layout.py: Layout.assemble). keep: descriptor of an empty file for packed weights,
  // or -1. replies: see WeightFiles.
  MappedWeights(int file, size_t size, const char *table, int keep, int replies)
      : files(replies), lean(file, size, ModelGraph::kRoom), packed(lean.data(), size) {
    packed.Keep(keep);
    std::ifstream lines(table);
    size_t position, length, offset;
    for (std::string kind, path; lines >> kind >> position >> length;) {
      if (kind == "stored") {
        if (stored == nullptr) {
          stored = std::make_unique<StoredWeights>(replies);
        }
        stored->Add(lean.Place(position, length), length, lines, &files);
        continue;
      }
      if (!(lines >> offset && std::getline(lines >> std::ws, path))) {
        throw std::runtime_error("the table of what it maps cannot be read");
      }
      if (kind == "packed") {
        packed.Add({position, length, offset}, files.Open(path));
      } else {
        lean.Map(position, length, files.Open(path), offset);
      }
    }
    if (!lines.eof()) {
      throw std::runtime_error("the table of what it maps cannot be read");
    }
  }

  // To be called once Lite has built the model. Throws if it does not fit what was packed.
  void EndBuilding() {
    lean.EndLending();
    packed.EndBuilding();
    if (stored != nullptr) {
      stored->EndBuilding();
    }
  }

  WeightFiles files;
  LeanWeights lean;
  PackedWeights packed;
  std::unique_ptr<StoredWeights> stored;
};

#endif
