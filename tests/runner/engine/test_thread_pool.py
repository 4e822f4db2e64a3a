"""The pool that shares out operators: every share runs once, whatever the threads, and a job ends when its last share has."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from kandinsky_mindir.runner import engine as engines
from kandinsky_mindir.runner.engine.compiler import find_compiler

PROGRAM = r"""
#include <cstdio>
#include <cstdlib>
#include <random>
#include <stdexcept>
#include "thread_pool.h"

#define REQUIRE(condition) if (!(condition)) { std::printf("line %d: %s\n", __LINE__, #condition); return 1; }

int main(int, char **argv) {
  const int threads = std::atoi(argv[1]), jobs = std::atoi(argv[2]);
  SharePool::Start(threads);
  std::mt19937 random(7);
  std::vector<int> runs;  // not atomic: no two threads may touch one of them
  for (int job = 0; job < jobs; ++job) {
    const int shares = 1 + random() % 20, failing = random() % 40, work = random() % 3 == 0 ? 2000 : 1;
    if (random() % 200 == 0) usleep(300);  // long enough for threads to fall asleep
    runs.assign(shares, 0);
    float begins[20], ends[20];
    std::vector<long> sums(shares);
    const SharePool::Task task = [&](void *content, int share, float begin, float end) {
      for (int i = 0; i < work * (share + 1); ++i) sums[share] += i;
      runs[share] += content == &job;
      begins[share] = begin;
      ends[share] = end;
      if (share == 0 && work > 1) {  // one inside another
        int inner = 0;
        SharePool::instance().Run([&](void *, int, float, float) { return ++inner, 0; }, nullptr, 3);
        if (inner != 3) return 2;
      }
      if (share == failing && job % 16 == 1) throw std::runtime_error("in a thread of the pool");
      return share == failing ? 5 : 0;
    };
    const int status = SharePool::instance().Run(task, &job, shares);
    REQUIRE(status == (failing >= shares ? 0 : job % 16 == 1 ? 1 : 5));
    for (int i = 0; i < shares; ++i) {
      REQUIRE(runs[i] == 1 && begins[i] == float(i) / shares && ends[i] == float(i + 1) / shares);
    }
  }
  std::puts("fine");
}
"""


# Jobs follow each other as fast as they can: what a thread knows of one is soon wrong of the next.
QUICK = r"""
#include <cstdio>
#include <cstdlib>
#include "thread_pool.h"

int main(int argc, char **argv) {
  if (argc == 1) return std::printf("%g\n", mindspore::CoreAffinity::GetServerFrequency()), 0;
  SharePool::Start(std::atoi(argv[1]));
  for (int job = 0; job < std::atoi(argv[2]); ++job) {
    const int shares = 2 + job * 5 % 7;
    int runs[8] = {};
    const SharePool::Task task = [&](void *, int share, float, float end) {
      runs[share] += end == static_cast<float>(share + 1) / shares;
      return 0;
    };
    SharePool::instance().Run(task, nullptr, shares);
    for (int i = 0; i < 8; ++i) {
      if (runs[i] != (i < shares)) {
        std::printf("job %d of %d shares: share %d ran %d times\n", job, shares, i, runs[i]);
        return 1;
      }
    }
  }
  std::puts("fine");
}
"""


def build(folder, source, *options):
    (folder / "main.cc").write_text(source)
    headers = Path(engines.__file__).parent / "native"
    command = [*find_compiler(), "-std=c++17", "-O1", "-pthread", *options, f"-I{headers}", "main.cc", "-o", "program"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "program"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return build(tmp_path_factory.mktemp("program"), PROGRAM, "-fsanitize=thread")


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    return build(tmp_path_factory.mktemp("quick"), QUICK)


@pytest.mark.parametrize("threads, jobs", [(1, 300), (2, 3000), (7, 1000)])
def test_every_share_runs_once(program, threads, jobs):
    """Under a sanitizer that finds what two threads touch at once."""
    result = subprocess.run([program, str(threads), str(jobs)], capture_output=True, text=True, timeout=120)
    assert (result.stdout, result.returncode) == ("fine\n", 0), result.stderr[:2000]


@pytest.mark.parametrize("threads", [2, 3])
def test_jobs_of_different_numbers_of_shares(quick, threads):
    result = subprocess.run([quick, str(threads), "400000"], capture_output=True, text=True, timeout=60)
    assert (result.stdout, result.returncode) == ("fine\n", 0), result.stderr[:2000]


@pytest.mark.parametrize("name", ["10ThreadPool14ParallelLaunch", "12CoreAffinity18GetServerFrequency"])
def test_lite_calls_these_functions(name, engine):
    """The linker binds its library's calls to the program's functions."""
    loaded = subprocess.run([engine.runtime.bridge], stderr=subprocess.PIPE, text=True, timeout=60,
                            env={**os.environ, "LD_BIND_NOW": "1", "LD_DEBUG": "bindings"})  # fmt: skip
    bound = [line for line in loaded.stderr.splitlines() if f"_ZN9mindspore{name}" in line]
    assert bound and all(f"to {engine.runtime.bridge} " in line for line in bound)


def test_the_frequency_of_the_processor(quick):
    """As the system says it, where it does."""
    found = float(subprocess.run([quick], capture_output=True, text=True, check=True, timeout=60).stdout)
    told = re.findall(r"^cpu MHz\s*: ([0-9.]+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    assert (found > 100) if told else found == -1
