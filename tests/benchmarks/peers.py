"""This project beside what people use, on one machine in one run: ``peers.py --scale micro`` or ``--scale full``.

Prints one table: seconds (the best run), their ratio to the best peer's, operations a second as a share of the machine's
matrix product, seconds to load, peak memory, disk. Each measurement is a process of its own; systems take turns, round
after round, with the same number of threads. Peers other than torch need ``pip install kandinsky-mindir[benchmark]``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import cases
import systems
from cases import Case

SYSTEMS = ("ours", "packed", "eager", "compiled", "openvino")
OWN = ("ours", "packed")
HERE = Path(__file__).resolve().parent
MICRO = HERE.parents[1] / "artifacts" / "micro"
SIZES = {"micro": ((64, 64), (64, 128)), "full": ((512, 512), (768, 768))}
STEPS = {"micro": (25, 50), "full": (5, 4)}  # of the prior and the decoder in a whole picture
WIDTH = 120  # of the text under the table
COLUMNS = ("case", "system", "seconds", "to the best peer", "of the matrix product", "load s", "peak GB", "disk GB")


def main():
    options = parse()
    if options.task:
        print("\n" + json.dumps(TASKS[options.task[0]](options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        options.cache = options.cache or Path(folder)
        if options.bundle is None:
            options.bundle = export(options)
        chosen = [Case(part, size, busy) for part in options.parts for size in options.sizes[: 2 if part == "unet" else 1]
                  for busy in options.busy]
        rows = measure(chosen, options)
        rate = task("rate", options)
        lines = [textwrap.fill(note, WIDTH, subsequent_indent="  ") for note in notes(rate, options)]
        table = "\n".join([*render(chosen, rows, rate, options), "", *lines])
    print(table)
    if options.output:
        options.output.write_text(table + "\n")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=SIZES, default="micro", help="which defaults to take for all below")
    parser.add_argument("--checkpoint", type=Path, help="folder of prior and decoder (micro: the one in artifacts; full: "
                        "what full_size.py wrote)")
    parser.add_argument("--bundle", type=Path, help="made of that checkpoint (default: it is exported first)")
    parser.add_argument("--parts", nargs="+", choices=(*cases.PARTS, "picture"), default=(*cases.PARTS, "picture"))
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument("--sizes", nargs="+", type=lambda text: tuple(map(int, text.split("x"))), help="HEIGHTxWIDTH; the "
                        "first for all, the second for another step of the UNet")
    parser.add_argument("--steps", type=int, help="of the decoder, for whole pictures")
    parser.add_argument("--prior-steps", type=int, help="of the prior, for whole pictures")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3, help="in each round, after one that does not count")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--busy", nargs="+", type=int, default=[0], help="run each case beside so many other processes that "
                        "do nothing but compute: a noisy machine")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of all systems")
    parser.add_argument("--cache", type=Path, help="where converted models are kept (default: nowhere)")
    parser.add_argument("--output", type=Path, help="write the table to a file too")
    parser.add_argument("--task", nargs="+", help=argparse.SUPPRESS)  # what one process does: a name and its arguments
    options = parser.parse_args()
    if not options.task and "openvino" in options.systems and find_spec("openvino") is None:
        parser.error("openvino is not installed: pip install -e '.[benchmark]', or leave it out of --systems")
    options.sizes = options.sizes or SIZES[options.scale]
    options.prior_steps, options.steps = (
        given or default for given, default in zip((options.prior_steps, options.steps), STEPS[options.scale])
    )
    if options.checkpoint is None:
        if options.scale == "full":
            parser.error("--scale full needs --checkpoint, which full_size.py writes")
        options.checkpoint = MICRO
    return options


def export(options):
    from kandinsky_mindir.export.bundle import export_bundle

    path = options.cache / "bundle"
    if not path.exists():
        export_bundle(options.checkpoint / "prior", options.checkpoint / "decoder", path, options.sizes, progress=False)
    return path


def measure(chosen, options):
    """(case, system) -> what its process says, the best of all rounds; a text where a system failed."""
    rows = {}
    for case in chosen if "openvino" in options.systems else ():
        for part in cases.PARTS if case.part == "picture" else [case.part]:
            task("convert", options, part, *case.size)
    if "packed" in options.systems:
        task("pack", options)
    for _ in range(options.rounds):
        for case in chosen:
            for system in options.systems:
                found, known = task("run", options, case.part, *case.size, case.busy, system), rows.get((case, system))
                best = found if known is None or isinstance(known, str) else known
                if not isinstance(found, str):
                    best = {name: min(found[name], best[name]) for name in found}
                rows[case, system] = best
    return rows


def task(name, options, *arguments):
    """What a process of its own makes of a task; the last line that it wrote if it failed."""
    names = ("scale", "checkpoint", "bundle", "prior_steps", "steps", "runs", "threads", "precision", "cache")
    given = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in names]
    command = [sys.executable, __file__, *given, "--task", name, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if result.returncode:
        lines = result.stderr.strip().splitlines()
        return f"{lines[-1] if lines else 'no message'} (status {result.returncode})"
    return json.loads(result.stdout.strip().splitlines()[-1])


def run(options):
    from kandinsky_mindir.runner.common.memory import PeakMemory

    _, part, height, width, busy, system = options.task
    case = Case(part, (int(height), int(width)), int(busy))
    if system not in OWN:
        import diffusers  # noqa: F401  what is imported is not loading
        import transformers  # noqa: F401
    if system == "openvino":
        import openvino  # noqa: F401
    with PeakMemory() as memory:
        started = time.perf_counter()
        call = getattr(systems, system)(case, options)
        if case.part == "picture":  # loads its models each time
            load, counted = 0.0, 1
        else:
            call()  # compiles, where it is done late
            load, counted = time.perf_counter() - started, options.runs
        seconds = []
        with busy_processes(case.busy):
            for _ in range(counted):
                started = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - started)
    if case.part != "picture":
        load -= min(seconds)
    return {"seconds": min(seconds), "load": load, "peak": memory.peak, "disk": systems.disk(system, case, options)}


@contextmanager
def busy_processes(number):
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        if started:
            time.sleep(0.5)  # until they are
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def convert(options):
    _, part, height, width = options.task
    return systems.convert(Case(part, (int(height), int(width))), options)


TASKS = {"run": run, "convert": convert, "pack": systems.pack, "rate": lambda options: systems.matrix_rate(options.threads, options.precision)}


def render(chosen, rows, rate, options):
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "| --- " * len(COLUMNS) + "|"
    for case in chosen:
        work = cases.operations(case, options.checkpoint)
        times = {system: rows[case, system]["seconds"] for system in options.systems
                 if not isinstance(rows[case, system], str)}
        peers = [seconds for system, seconds in times.items() if system not in OWN]
        for system in options.systems:
            row = rows[case, system]
            if isinstance(row, str):
                yield f"| {case.title} | {system} | failed: {row[:100]} |" + " |" * (len(COLUMNS) - 3)
                continue
            ratio = f"{row['seconds'] / min(peers):.2f}" if peers else ""
            share = f"{work / row['seconds'] / rate:.0%}" if work else ""
            load = "in it" if case.part == "picture" else "" if case.busy else f"{row['load']:.1f}"
            yield (f"| {case.title} | {system} | {row['seconds']:.4g} | {ratio} | {share} | {load} | "
                   f"{row['peak'] / 1e9:.2f} | {row['disk'] / 1e9:.3f} |")


def notes(rate, options):
    versions = {name: version(name) for name in ("torch", "diffusers")}
    if "openvino" in options.systems:
        versions["openvino"] = version("openvino")
    yield (f"- {options.threads} threads, best of {options.rounds} rounds of {options.runs} runs. The machine's matrix "
           f"product: {rate / 1e9:.0f} GFLOP/s (3072 x 3072, {options.precision}, the best of NumPy's, torch's and oneDNN's).")
    for system in options.systems:
        yield f"- {system}: {systems.SETUP[system].format(**versions)}."
    yield ("- Operations are those of the reference, counted by torch; this project does fewer of them: convolutions take "
           "fewer products, and what does not depend on the step is computed once a picture.")
    yield ("- Peak memory is private memory and files in memory; weights that are mapped from disk do not count. OpenVINO "
           "and packed compute with those; ours packs them in each load, and that copy counts.")
    yield "- Load is from an imported library to a model that has run once, less the run."
    if any(options.busy):
        yield "- beside N busy: N other processes compute as much as they are given, as servers and devices have them."
    if "picture" in options.parts:
        yield (f"- picture: {options.prior_steps} steps of the prior and {options.steps} of the decoder, with guidance; "
               "loading each model when it is needed is part of it, compiling too. torch and OpenVINO load the prior's "
               "half, free it, and load the decoder's.")


if __name__ == "__main__":
    main()
