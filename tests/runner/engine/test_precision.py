"""Which precision an engine computes in: what was asked for, or, with a line that says why, what the processor has."""

import pytest
from kandinsky_mindir.runner.engine import onednn, precision, runtime

PENTIUM, EPYC, SKYLAKE = "x86_64 sse2", "x86_64 avx512f avx512_bf16", "x86_64 avx512bw avx512f avx512vl"
A53, A76 = "aarch64 asimd fp", "aarch64 asimd asimdhp fp fphp"
NO_BF16, NO_FP16 = "this processor lacks its instructions (AVX512_BF16)", "this processor lacks its instructions (ASIMDHP, of ARMv8.2)"
NOT_HERE = "its kernels are for x86_64, not aarch64"


@pytest.fixture
def on(monkeypatch):
    def machine(words):
        monkeypatch.setattr(precision.platform, "machine", lambda: words.split()[0])
        monkeypatch.setattr(precision, "processor", lambda: words)

    return machine


@pytest.mark.parametrize("words, asked, chosen, reason", [
    (PENTIUM, "float32", "float32", ""), (PENTIUM, "bfloat16", "float32", NO_BF16), (PENTIUM, "auto", "float32", ""),
    (PENTIUM, "float16", "float32", "its kernels are for aarch64, not x86_64"),
    (EPYC, "float32", "float32", ""), (EPYC, "bfloat16", "bfloat16", ""), (EPYC, "auto", "bfloat16", ""),
    (EPYC, "float16", "float32", "its kernels are for aarch64, not x86_64"),
    (A53, "float32", "float32", ""), (A53, "bfloat16", "float32", NOT_HERE), (A53, "auto", "float32", ""),
    (A53, "float16", "float32", NO_FP16),
    (A76, "float32", "float32", ""), (A76, "bfloat16", "float32", NOT_HERE), (A76, "auto", "float16", ""),
    (A76, "float16", "float16", ""),
])
def test_what_a_processor_has(on, words, asked, chosen, reason):
    on(words)
    said = []
    assert precision.choose(asked, said.append) == chosen
    assert said == ([f"{asked}: {reason}: float32 is used instead"] if reason else [])


@pytest.mark.parametrize("words, there, kernels", [
    (PENTIUM, True, "lite"), (A76, True, "lite"), (SKYLAKE, False, "lite"), (SKYLAKE, True, "own"),
])
def test_whose_kernels_compute_in_float32(on, tmp_path, monkeypatch, words, there, kernels):
    on(words)
    monkeypatch.setattr(runtime.platform, "machine", lambda: words.split()[0])
    monkeypatch.setenv("KANDINSKY_MINDIR_CACHE", str(tmp_path))
    library = runtime._onednn()
    library.parent.mkdir(parents=True)
    if there:
        library.touch()
        library.with_name(onednn.OPENMP).touch()
    assert (runtime.kernels("float32"), runtime.kernels("float16"), runtime.kernels("bfloat16")) == (kernels, "lite", "own")
    said = runtime.info()["float32"]
    assert said.startswith("oneDNN 3.2 and" if kernels == "own" else "MindSpore Lite's own kernels: ")
    assert ("`runtime install` adds oneDNN" in said) == (words == SKYLAKE and not there)


@pytest.mark.parametrize("words, float16", [(A76, "MindSpore Lite's own kernels"), (A53, f"no: {NO_FP16}")])
def test_the_runtime_says_it(on, monkeypatch, words, float16):
    on(words)
    monkeypatch.setattr(runtime.platform, "machine", lambda: words.split()[0])
    assert runtime.info()["float16"] == float16 and runtime.info()["bfloat16"] == f"no: {NOT_HERE}"
