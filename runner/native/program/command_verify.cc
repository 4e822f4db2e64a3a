#include <cstdio>
#include <memory>

#include "program/command_line.h"
#include "common/errors.h"

namespace kandinsky {

namespace {

struct Arguments {
  std::string bundle, part;
  std::optional<double> tolerance;
  bool files = false;
  EngineArguments engine;
};

std::string Row(const Verdict &verdict) {
  const GraphInfo &graph = *verdict.graph;
  char row[160];
  std::snprintf(row, sizeof(row), "%-16s%-6lld%-10s%9.1e%9.1e%8.1f%9.2f  %s", graph.name.c_str(), static_cast<long long>(graph.batch),
                graph.size ? SizeText(*graph.size).c_str() : "", verdict.error, verdict.bound, verdict.psnr, verdict.seconds,
                !verdict.failure.empty() ? "does not run" : verdict.right() ? "right" : "WRONG");
  return row;
}

void Verify(const Arguments &arguments) {
  if (arguments.tolerance && !(*arguments.tolerance > 0)) {
    throw UserError("--tolerance must be above 0");
  }
  if (arguments.files) {
    Stop stop;
    StopOnSignals(&stop);
    const std::shared_ptr<void> until_the_end(nullptr, [](void *) { StopOnSignals(nullptr); });
    Bundle(arguments.bundle, Check::kAlways, &stop).VerifyFiles();
    return;
  }
  SessionOptions options = arguments.engine.Options();
  options.check = "always";
  options.keep_loaded = false;
  Session session(arguments.bundle, options);
  StopOnSignals(&session.stop());
  const std::shared_ptr<void> until_the_end(nullptr, [](void *) { StopOnSignals(nullptr); });
  std::string wrong;
  bool first = true;
  session.Verify(arguments.part, arguments.tolerance, [&](const Verdict &verdict) {
    if (first) {
      PrintLine("graph           batch size          error  allowed    PSNR  seconds  verdict");
    }
    first = false;
    PrintLine(Row(verdict));
    if (!verdict.right() && wrong.empty()) {
      wrong = verdict.Text() + (verdict.failure.empty() ? "; kandinsky-mindir verify --bisect names the layer" : "");
    }
  });
  if (!wrong.empty()) {
    throw UserError(wrong);
  }
}

}  // namespace

void AddVerify(CLI::App *app) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App *command = app->add_subcommand("verify", "check that a bundle computes what it should on this machine");
  command->add_option("BUNDLE,-m,--model", arguments->bundle, "folder that kandinsky-mindir export wrote")->required();
  command->add_option("--part", arguments->part, "only this part, for example unet");
  command->add_option("--tolerance", arguments->tolerance, "relative error to allow (default: what --precision explains)");
  command->add_flag("--files", arguments->files, "only hold every file to its sha256")->disable_flag_override();
  AddThreadsAndPrecision(command, &arguments->engine);
  command->callback([arguments] { Verify(*arguments); });
}

}  // namespace kandinsky
