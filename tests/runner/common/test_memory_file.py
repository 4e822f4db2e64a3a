"""Files in memory: also where Python lacks the call, or the system refuses it."""

import errno
import os
import platform

import pytest
from kandinsky_mindir.runner.common import memory_file as module
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.common.memory_file import memory_file


@pytest.fixture(params=["os.memfd_create", "the system's call"])
def way(request, monkeypatch):
    if request.param != "os.memfd_create":
        monkeypatch.delattr(os, "memfd_create")


def test_it_is_a_file_that_programs_do_not_inherit(way):
    with open(memory_file("some-name"), "r+b", buffering=0) as file:
        assert os.readlink(f"/proc/self/fd/{file.fileno()}").startswith("/memfd:some-name")
        assert not os.get_inheritable(file.fileno())
        file.write(b"text")
        assert os.pread(file.fileno(), 9, 0) == b"text"


def test_a_system_that_has_none(monkeypatch):
    def refuse(name):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "memfd_create", refuse)
    with pytest.raises(UserError, match=r"no file in memory \(memfd_create: Function not implemented\).* needs Linux 3.17"):
        memory_file("name")


def test_a_machine_whose_call_is_not_known(monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(UserError, match="no os.memfd_create for Linux on riscv64: this program needs Linux on x86_64 or"):
        memory_file("name")


def test_the_calls_error_is_told(monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setitem(module.CALL_NUMBERS, platform.machine(), -1)  # no call has that number
    with pytest.raises(UserError, match="memfd_create: Function not implemented"):
        memory_file("name")
