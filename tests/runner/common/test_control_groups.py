"""What control groups leave to this process, in trees as Linux shows them: both versions, nested, and seen from a container."""

import os

import pytest
from kandinsky_mindir.runner.common import control_groups, memory
from kandinsky_mindir.runner.common.control_groups import thread_count
from kandinsky_mindir.runner.common.errors import UserError

MB = 2**20
V2 = "30 24 0:27 {root} {point} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "35 31 0:32 {root} {point} rw,relatime - cgroup cgroup rw,memory"
CPU = "36 31 0:33 {root} {point} rw,relatime - cgroup cgroup rw,cpu,cpuacct"
OTHER = "22 1 8:1 / / rw - ext4 /dev/sda1 rw"


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A function that makes a tree: the lines of /proc/self/cgroup, the mounts, and files by their paths."""
    monkeypatch.setattr(control_groups, "ROOT", tmp_path)

    def make(groups, mounts, files):
        contents = {"proc/self/cgroup": "\n".join(groups), "proc/self/mountinfo": "\n".join([OTHER, *mounts]), **files}
        for name, content in contents.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")

    return make


def v2(limit, used, files=0, high="max", shared=0):
    """The files of a group of version 2, all in MB: `files` of what is used are pages of files, `shared` files in memory."""
    number = {name: value if value == "max" else int(value * MB) for name, value in (("max", limit), ("high", high))}
    return {"memory.max": number["max"], "memory.high": number["high"], "memory.current": used * MB,
            "memory.stat": f"anon 1\nfile {(files + shared) * MB}\nshmem {shared * MB}\ninactive_file {files * MB // 2}\n"
                           f"active_file {files * MB // 2}"}


def v1(limit, used, files=0, hierarchy=1):
    return {"memory.limit_in_bytes": 2**63 - 4096 if limit is None else limit * MB, "memory.usage_in_bytes": used * MB,
            "memory.stat": f"cache 1\ninactive_file 7\ntotal_inactive_file {files * MB // 2}\ntotal_active_file {files * MB // 2}",
            "memory.use_hierarchy": hierarchy}


def at(folder, files):
    return {f"{folder}/{name}": content for name, content in files.items()}


def test_a_machine_without_groups(tree):
    tree([], [], {})
    assert control_groups.memory_left() is None and control_groups.processors() is None


def test_no_proc_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(control_groups, "ROOT", tmp_path)
    assert control_groups.memory_left() is None and control_groups.processors() is None


@pytest.mark.parametrize("leaf, slice, expected", [
    (v2(160, 60), {}, 100), (v2("max", 60), v2(500, 300), 200), (v2(400, 60), v2(500, 300), 200), (v2(160, 60), v2(500, 100), 100),
    (v2(160, 60, files=40), {}, 140), (v2(160, 60, shared=40), {}, 100), (v2(160, 60, high=100), {}, 40), (v2(160, 170), {}, 0),
    (v2("max", 60), {}, None),
], ids=["own", "slice's", "slice's is smaller", "own is smaller", "files", "files in memory", "high", "above", "none"])
def test_version_2_as_a_service_of_systemd_has_it(tree, leaf, slice, expected):
    """The outermost group has no such files."""
    group = "sys/fs/cgroup/system.slice"
    tree(["0::/system.slice/pictures.service"], [V2.format(root="/", point="/sys/fs/cgroup")],
         {**at(f"{group}/pictures.service", leaf), **at(group, slice)})
    assert control_groups.memory_left() == (None if expected is None else expected * MB)


@pytest.mark.parametrize("leaf, parent, expected", [
    (v1(160, 60), v1(None, 60), 100), (v1(None, 60), v1(500, 300), 200), (v1(None, 60), v1(500, 300, hierarchy=0), 2**63),
    (v1(160, 60, files=40), v1(None, 60), 140),
], ids=["own", "parent's", "parent that does not count it", "files"])
def test_version_1_as_older_hosts_have_it(tree, leaf, parent, expected):
    group = "sys/fs/cgroup/memory/docker"
    tree(["4:memory:/docker/ab12", "9:name=systemd:/docker/ab12"], [V1.format(root="/", point="/sys/fs/cgroup/memory")],
         {**at(f"{group}/ab12", leaf), **at(group, parent)})
    assert min(control_groups.memory_left(), 2**62) == min(expected * MB, 2**62)


@pytest.mark.parametrize("path, root", [("/docker/ab12", "/docker/ab12"), ("/", "/"), ("/docker/ab12", "/elsewhere"),
                                        ("/../ab12", "/")])
@pytest.mark.parametrize("version, group, mount", [(2, v2(160, 60), V2), (1, v1(160, 60), V1)])
def test_a_container_sees_its_group_at_the_mount_point(tree, path, root, version, group, mount):
    """With a name space of its own, without one, and where what is mounted is not what its path says."""
    point = "/sys/fs/my cgroup"
    tree([f"0::{path}" if version == 2 else f"4:memory:{path}"],
         [mount.format(root=root, point=point.replace(" ", r"\040"))], at(point.lstrip("/"), group))
    assert control_groups.memory_left() == 100 * MB


def test_both_versions_at_once(tree):
    tree(["0::/a", "4:memory:/b"], [V2.format(root="/", point="/sys/fs/cgroup/unified"),
                                    V1.format(root="/", point="/sys/fs/cgroup/memory")],
         {**at("sys/fs/cgroup/unified/a", v2(90, 20)), **at("sys/fs/cgroup/memory/b", v1(160, 60))})
    assert control_groups.memory_left() == 70 * MB


def test_what_can_be_had_is_the_least_of_machine_and_groups(monkeypatch):
    monkeypatch.setattr(memory, "memory_left", lambda: None)
    machine = memory.available()
    monkeypatch.setattr(memory, "memory_left", lambda: 10 * MB)
    assert memory.available() == 10 * MB < machine
    monkeypatch.setattr(memory, "memory_left", lambda: 2**62)
    assert 0 < memory.available() < 2**62


@pytest.mark.parametrize("files, expected", [
    (at("sys/fs/cgroup/s/u", {"cpu.max": "150000 100000"}), 1.5), (at("sys/fs/cgroup/s", {"cpu.max": "50000 100000"}), 0.5),
    ({**at("sys/fs/cgroup/s/u", {"cpu.max": "max 100000"}), **at("sys/fs/cgroup/s", {"cpu.max": "300000 100000"})}, 3.0),
    (at("sys/fs/cgroup/s/u", {"cpu.max": "max 100000"}), None), (at("sys/fs/cgroup/s/u", {"cpu.max": "nonsense"}), None),
])
def test_processors_of_version_2(tree, files, expected):
    tree(["0::/s/u"], [V2.format(root="/", point="/sys/fs/cgroup")], files)
    assert control_groups.processors() == expected


@pytest.mark.parametrize("quota, expected", [("250000", 2.5), ("-1", None)])
def test_processors_of_version_1(tree, quota, expected):
    tree(["3:cpu,cpuacct:/d"], [CPU.format(root="/", point="/sys/fs/cgroup/cpu")],
         at("sys/fs/cgroup/cpu/d", {"cpu.cfs_quota_us": quota, "cpu.cfs_period_us": "100000"}))
    assert control_groups.processors() == expected


@pytest.mark.parametrize("quota, named, expected", [
    (None, None, 8), (1.5, None, 2), (0.1, None, 1), (20.0, None, 8), (None, "3", 3), (None, "3,2", 3), (None, "64", 8),
    (None, "0", 8), (None, "-2", 8), (None, "many", 8), (None, "", 8), (6.0, "5", 5), (4.0, "5", 4),
])
def test_threads_by_default(monkeypatch, quota, named, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(control_groups, "processors", lambda: quota)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if named is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", named)
    assert thread_count(None) == expected
    assert thread_count(6) == 6  # who names a number, has it
    with pytest.raises(UserError, match="threads must be at least 1"):
        thread_count(0)
