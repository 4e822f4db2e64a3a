"""SIGKILL at random moments of `kandinsky-mindir batch`: the same command goes on, and the pictures are those of a run that
nobody disturbs, to the last byte.

  python tests/programs/batch_kills.py BUNDLE [--pictures 200] [--kills 10] [--workers 2] [--steps 2] [--seed 0]
  python tests/programs/batch_kills.py BUNDLE --ray 3                        one node of three is killed instead

Half of the kills are of the command itself, half of one of its workers, at moments that are spread over the run. After each
kill of the command its workers end by themselves, and every picture that is there is whole and right. With --ray, nodes are
those of ray.cluster_utils on this machine, with one processor each, and a fourth is added after one has gone.
Prints a row: pictures, kills of the command and of workers, runs of the command, pictures made twice or more, seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from kills import PATIENCE, PROGRAM, running

TITLES = ("pictures", "command killed", "worker killed", "runs", "made twice", "seconds")


class Batch:
    """A file of requests, and the command that makes its pictures into a folder."""

    def __init__(self, folder: Path, bundle: Path, pictures: int, steps: int, workers: int, ray: str | None = None):
        self.folder, self.pictures = folder, pictures
        folder.mkdir(exist_ok=True)
        self.requests = folder / "requests.jsonl"
        few = {"num_inference_steps": steps, "prior_num_inference_steps": steps}
        self.requests.write_text("".join(json.dumps({"id": f"p{i:04}", "prompt": f"picture {i % 7}", **few}) + "\n"
                                         for i in range(pictures)))
        self.workers = workers
        machines = ["--workers", str(workers)] if ray is None else ["--ray", ray]
        self.command = [*PROGRAM, "batch", str(bundle.absolute()), str(self.requests), "--threads", "1", *machines, "--quiet"]

    def start(self, name: str) -> subprocess.Popen:
        return subprocess.Popen([*self.command, "--output", str(self.folder / name)], stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True, start_new_session=True)

    def finish(self, name: str) -> dict[str, bytes]:
        """Run it to its end; the pictures."""
        process = self.start(name)
        _, errors = process.communicate()
        assert process.returncode == 0, errors
        return self.there(name)

    def there(self, name: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.folder / name).glob("*.png")}

    def wait_for(self, process: subprocess.Popen, name: str, pictures: int) -> bool:
        """Until so many pictures are there; whether the command still runs."""
        deadline = time.monotonic() + PATIENCE
        while len(list((self.folder / name).glob("*.png"))) < pictures and process.poll() is None:
            assert time.monotonic() < deadline, "no picture comes"
            time.sleep(0.005)
        return process.poll() is None


def painters(process: subprocess.Popen) -> list[int]:
    """The workers of a command: processes that it has started and that have models of their own."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def disturb(batch: Batch, kills: int, random: np.random.Generator) -> tuple:
    """Kill the command and its workers in turn, then let it finish; the cells of the row."""
    started = time.monotonic()
    right = batch.finish("undisturbed")
    assert len(right) == batch.pictures
    moments = iter(np.sort(random.integers(0, batch.pictures, kills)))
    killed = Counter[str]()
    runs, process = 1, batch.start("disturbed")
    for number, moment in enumerate(moments):
        if not batch.wait_for(process, "disturbed", int(moment)):
            break
        time.sleep(random.random() * 0.05)
        kind = ("command", "worker")[number % 2]
        if kind == "worker" and (found := painters(process)):
            os.kill(found[random.integers(len(found))], signal.SIGKILL)
        else:
            kind = "command"
            process.kill()
            process.communicate()
            deadline = time.monotonic() + PATIENCE
            while running(process.pid):
                assert time.monotonic() < deadline, "workers go on without the command"
                time.sleep(0.02)
            there = batch.there("disturbed")
            assert all(right[name] == data for name, data in there.items()), "a picture is half, or another"
            runs, process = runs + 1, batch.start("disturbed")
        killed[kind] += 1
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return (*finished(batch, right), killed["command"], killed["worker"], runs, time.monotonic() - started)


def finished(batch: Batch, right: dict[str, bytes]) -> tuple[int, int]:
    """(pictures, how many were made twice); AssertionError if they are not all there, or not right, or not recorded."""
    found = batch.there("disturbed")
    wrong = sorted(name for name in right.keys() | found.keys() if right.get(name) != found.get(name))
    assert not wrong, f"missing, or not as in the undisturbed run: {wrong}"
    lines = (batch.folder / "disturbed" / "results.jsonl").read_text().splitlines()
    made: Counter[str] = Counter()
    for line in lines:
        try:
            made[json.loads(line)["file"]] += 1
        except ValueError:
            continue  # a kill has cut it
    assert set(made) == set(right), "a picture is not recorded"
    assert not list((batch.folder / "disturbed").glob(".*")), "something half is left"
    return len(found), sum(count > 1 for count in made.values())


def records(folder: Path) -> list[dict]:
    path = folder / "results.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def lose_a_node(folder: Path, bundle: Path, pictures: int, steps: int, nodes: int) -> tuple[int, int, int, float]:
    """A Ray cluster of so many nodes; one that makes pictures is killed when two do, and another added.

    (pictures, nodes that made some, pictures that were put back, seconds).
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    right = Batch(folder, bundle, pictures, steps, 1).finish("undisturbed")
    node = {"num_cpus": 1, "object_store_memory": 90_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": 0, "include_dashboard": False})
    try:
        members = [cluster.add_node(**node) for _ in range(nodes)]
        cluster.wait_for_nodes()
        batch = Batch(folder, bundle, pictures, steps, 1, cluster.address)
        started = time.monotonic()
        process = batch.start("disturbed")
        while len({record["worker"] for record in records(folder / "disturbed")}) < 2:
            assert process.poll() is None and time.monotonic() < started + PATIENCE, "one node makes all of them"
            time.sleep(0.05)
        busy = records(folder / "disturbed")[-1]["worker"].split()[-1]
        (victim,) = (member for member in members if member.node_id.startswith(busy))
        cluster.remove_node(victim, allow_graceful=False)
        cluster.add_node(**node)
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        seconds = time.monotonic() - started
    finally:
        cluster.shutdown()
    count, _ = finished(batch, right)
    found = records(folder / "disturbed")
    return count, len({record["worker"] for record in found}), sum(record["tries"] > 1 for record in found), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    for name, number in (("pictures", 200), ("kills", 10), ("workers", 2), ("steps", 2), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--ray", type=int, metavar="NODES")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.ray:
            count, nodes, back, seconds = lose_a_node(Path(folder) / "ray", args.bundle, args.pictures, args.steps, args.ray)
            print(f"{count} pictures in {seconds:.1f} s by {nodes} nodes, one of them killed; {back} put back")
            return
        batch = Batch(Path(folder) / "batch", args.bundle, args.pictures, args.steps, args.workers)
        count, twice, commands, workers, runs, seconds = disturb(batch, args.kills, np.random.default_rng(args.seed))
        print(" ".join(f"{title:>15}" for title in TITLES))
        print(" ".join(f"{cell:>15}" for cell in (count, commands, workers, runs, twice, f"{seconds:.1f}")))


if __name__ == "__main__":
    main()
