"""A crew on a Ray cluster: painters on every node that has the bundle, for as long as the node lives.

Ray does not start a call again whose actor has died, and an actor that belongs to a node does not move to another: so this
crew looks which nodes there are, has painters on each, and hands back the job of one that died. Pictures come back to the
driver, which alone writes files.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from ..common.errors import UserError, one_line
from ..request import Request
from .crew import Outcome
from .painter import Order, Painter, Setting
from .rows import Job

SECONDS_BETWEEN_LOOKS = 5.0  # at the nodes
MOST_FALSE_STARTS = 3  # of a node's painters, before the node is left out
PATIENCE = 60.0  # seconds without a painter, after which the driver says what it waits for


class Cluster:
    """Painters on the nodes of the cluster at `address`. See crew.Crew.

    setting: as each painter's; its share says how many painters a node has. Its option threads, or the least number of
    processors of a node for each painter, is the number of threads of all: pictures do not depend on who makes them.
    """

    ships = True

    def __init__(self, address: str, setting: Setting, bundle_sha256: str | None):
        self._ray = _connect(address)
        try:
            self.bundle_sha256, self.precision, self._hands = bundle_sha256 or "", "", list[_Hand]()
            self._false_starts, self._left_out, self._said = Counter[str](), dict[str, str](), set[str]()
            self._looked, self._waits_since = 0.0, time.monotonic()
            self._per_node = setting.share
            threads = setting.options.get("threads") or self._threads()
            self.threads = threads
            self._setting = setting._replace(options={**setting.options, "threads": threads})
            self._actor = self._ray.remote(num_cpus=threads, max_restarts=0, max_task_retries=0)(Painter)
        except BaseException:
            self.close()
            raise

    @property
    def idle(self) -> int:
        return sum(hand.ready and hand.job is None for hand in self._hands)

    @property
    def busy(self) -> int:
        return sum(hand.job is not None for hand in self._hands)

    def judge(self, requests: Sequence[str]) -> Iterator[Request | UserError]:
        """As Painter.judge, by the first painter that is there."""
        while True:
            while not self.idle:
                self.wait(1.0)
            hand = next(hand for hand in self._hands if hand.ready)
            try:
                found = self._ray.get(hand.actor.judge_all.remote(list(requests)))
            except self._ray.exceptions.RayActorError as error:
                self._bury(hand, _reason(error))
                continue
            yield from (each if isinstance(each, UserError) else Request.from_json(each) for each in found)
            return

    def give(self, job: Job, order: Order) -> None:
        hand = next(hand for hand in self._hands if hand.ready and hand.job is None)
        hand.job, hand.call = job, hand.actor.paint.remote(order)

    def wait(self, seconds: float) -> list[Outcome]:
        self._look()
        calls = {hand.call: hand for hand in self._hands if hand.call is not None}
        if not calls:
            self._require_hope()
            time.sleep(min(seconds, 0.2))
            return []
        ended, _ = self._ray.wait(list(calls), timeout=seconds)
        found = []
        for call in ended:
            hand = calls[call]
            try:
                said = self._ray.get(call)
            except self._ray.exceptions.RayError as error:
                found += self._bury(hand, _reason(error))
                continue
            hand.call = None
            if hand.job is None:
                self._welcome(hand, *said)
            else:
                found.append(Outcome(hand.job, said, hand.name))
                hand.job = None
        return found

    def close(self) -> None:
        self._ray.shutdown()

    def _threads(self) -> int:
        cores = [cores // self._per_node for _, _, cores in self._nodes() if cores >= self._per_node]
        if not cores:
            raise UserError(f"no node of the cluster has {self._per_node} processors for painters: choose fewer --workers")
        return min(cores)

    def _nodes(self) -> list[tuple[str, str, int]]:
        """(id, name, processors) of each node that lives."""
        return [(node["NodeID"], node["NodeManagerHostname"], int(node["Resources"].get("CPU", 0)))
                for node in self._ray.nodes() if node["Alive"]]

    def _look(self) -> None:
        """Start painters on nodes that have fewer than they should."""
        if time.monotonic() - self._looked < SECONDS_BETWEEN_LOOKS:
            return
        self._looked = time.monotonic()
        there = Counter(hand.node for hand in self._hands)
        for node, host, cores in self._nodes():
            for _ in range(min(self._per_node, cores // self.threads) - there[node]):
                if node not in self._left_out:
                    self._hands.append(self._start(node, host))

    def _start(self, node: str, host: str) -> _Hand:
        here = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        actor = self._actor.options(scheduling_strategy=here).remote(self._setting)
        return _Hand(node, f"{host} {node[:6]}", actor, actor.facts.remote())

    def _welcome(self, hand: _Hand, bundle_sha256: str, precision: str, remarks: tuple[str, ...]) -> None:
        for remark in remarks:
            if remark not in self._said:
                self._said.add(remark)
                warnings.warn(f"{hand.name}: {remark}", stacklevel=2)
        if bundle_sha256 != (self.bundle_sha256 or bundle_sha256) or precision != (self.precision or precision):
            self._false_starts[hand.node] = MOST_FALSE_STARTS
            self._ray.kill(hand.actor)
            same = bundle_sha256 == self.bundle_sha256
            self._bury(hand, f"it would compute in {precision}" if same else "its bundle is another one")
        else:
            self.bundle_sha256, self.precision, hand.ready = bundle_sha256, precision, True
            self._false_starts[hand.node] = 0

    def _bury(self, hand: _Hand, reason: str) -> list[Outcome]:
        """Forget a painter that is not to be used any more. The next look starts another, if its node lives."""
        self._hands.remove(hand)
        self._looked = 0.0
        if not hand.ready:
            self._false_starts[hand.node] += 1
            if self._false_starts[hand.node] >= MOST_FALSE_STARTS:
                self._left_out[hand.node] = reason
                warnings.warn(f"the node {hand.name} makes no pictures: {reason}", stacklevel=2)
        return [] if hand.job is None else [Outcome(hand.job, None, hand.name)]

    def _require_hope(self) -> None:
        """UserError if every node that could have painters was left out."""
        fit = [node for node, _, cores in self._nodes() if cores >= self.threads]
        if fit and all(node in self._left_out for node in fit):
            raise UserError(f"no node of the cluster makes pictures: {self._left_out[fit[0]]}")
        if time.monotonic() - self._waits_since > PATIENCE and "wait" not in self._said:
            self._said.add("wait")
            warnings.warn(f"no node of the cluster has {self.threads} processors free: waiting for one", stacklevel=2)


class _Hand:
    """A painter. call: what it is doing: opening the bundle, until it is `ready`; then its job."""

    def __init__(self, node: str, name: str, actor: Any, call: Any):
        self.node, self.name, self.actor, self.call, self.ready = node, name, actor, call, False
        self.job: Job | None = None


def _connect(address: str) -> Any:
    """The module ray, connected."""
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError:
        raise UserError("--ray needs Ray: run pip install 'kandinsky-mindir[ray]'") from None
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise UserError(f"there is no Ray cluster at {address} ({one_line(error)[:200]}): start one with ray start, or give the "
                        "address that it printed") from None
    return ray


def _reason(error: Exception) -> str:
    """What ended a painter: its own error, if it could not start."""
    cause = getattr(error, "cause", None)
    lines = [line.strip() for line in str(cause or error).splitlines() if line.strip()]
    own = (line.partition("UserError: ")[2] for line in reversed(lines) if "UserError: " in line)
    return one_line(next(own, lines[-1] if lines else type(error).__name__))
