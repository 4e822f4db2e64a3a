"""What Ray costs: a batch by one painter in a process of its own, and by one painter on a Ray cluster of one node.

  python tests/benchmarks/ray_overhead.py BUNDLE [--pictures 20] [--steps 20] [--threads 1]

The overhead is the time from the first order to the last picture on the disk, less what the painter says that its pictures
took, to the latter. The start of the painters, and of the cluster, is not in it. Ray gives its processes a low priority
(nice 15): on a machine that does other work besides, pictures take longer there, and the last column says so.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from kandinsky_mindir.runner.batch import drive, output, rows
from kandinsky_mindir.runner.batch.cluster import Cluster
from kandinsky_mindir.runner.batch.painter import Painter, Setting
from kandinsky_mindir.runner.batch.processes import Processes

NODE = {"object_store_memory": 90_000_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    for name, number in (("pictures", 20), ("steps", 20), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=number)
    args = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster as Nodes

    setting = Setting(str(args.bundle.absolute()), str(args.bundle), {"threads": args.threads})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        few = {"num_inference_steps": args.steps, "prior_num_inference_steps": 5}
        path.write_text("".join(json.dumps({"id": f"p{i}", "prompt": f"picture {i}", **few}) + "\n" for i in range(args.pictures)))
        jobs = drive.judged(path, rows.jobs_of(path, rows.read(path)), Painter(setting))
        nodes = Nodes(initialize_head=True, head_node_args={**NODE, "num_cpus": args.threads, "include_dashboard": False})
        try:
            crews = {"a process": lambda: Processes(setting, 1), "a node of Ray": lambda: Cluster(nodes.address, setting, None)}
            print("| painter in | pictures | seconds of pictures | seconds in all | overhead | to a process |\n"
                  "| --- | --- | --- | --- | --- | --- |")
            first = None
            for name, make in crews.items():
                crew = make()
                while not crew.idle:
                    crew.wait(0.1)
                with output.opened(Path(folder) / name, jobs) as place:
                    started, outcomes = time.monotonic(), []
                    for outcome in drive.drive(jobs, crew, place, args.bundle, 1, lambda _: None):
                        outcomes.append(outcome)
                        seconds = time.monotonic() - started  # to the last: the crew's end is not in it
                answers = [outcome.answer for outcome in outcomes]
                assert all(answer and answer.png for answer in answers), answers
                painted = sum(answer.seconds for answer in answers)
                first = first or seconds
                print(f"| {name} | {len(answers)} | {painted:.2f} | {seconds:.2f} | {100 * (seconds / painted - 1):.1f}% | "
                      f"{seconds / first:.2f} |", flush=True)
        finally:
            nodes.shutdown()


if __name__ == "__main__":
    main()
