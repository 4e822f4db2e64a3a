// The program that turns a MindIR into Lite's own format, `.ms`, for bridge.py: convert MINDIR MS
//
// A MindIR goes through the converter's passes over all nodes each time it is loaded; a .ms has them behind it. It ends
// with status 0, or says on standard error why not.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <vector>

#include "include/api/format.h"
#include "include/api/status.h"
#include "include/api/types.h"
#include "include/registry/converter_context.h"
#include "follow_parent.h"

namespace mindspore {

// The library exports this class, and the wheel has no header for it: these are the members used here.
class Converter {
 public:
  Converter();
  void SetSaveType(ModelType type);
  void SetInputFormat(Format format);
  Status Convert(converter::FmkType source, const std::vector<char> &model, const std::vector<char> &output,
                 const std::vector<char> &weights);

 private:
  struct Data;
  std::shared_ptr<Data> data_;
};

}  // namespace mindspore

namespace {

std::vector<char> Chars(const char *text) { return std::vector<char>(text, text + std::strlen(text)); }

int Convert(const char *mindir, const char *ms) {
  mindspore::Converter converter;
  converter.SetSaveType(mindspore::kMindIR_Lite);
  // The default would make 4-D inputs NHWC, and leave outputs NCHW.
  converter.SetInputFormat(mindspore::NCHW);
  const auto status = converter.Convert(mindspore::converter::kFmkTypeMs, Chars(mindir), Chars(ms), {});
  if (status != mindspore::kSuccess) {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return 1;
  }
  return 0;
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: convert MINDIR MS\n");
    return 2;
  }
  OpenStandardStreams();
  FollowParent(-1);
  int status = 1;
  try {
    status = Convert(argv[1], argv[2]);
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
  }
  std::fflush(nullptr);
  std::_Exit(status);  // without the libraries' farewells
}
