"""Every component of the installed package, as a stranger takes it: find_package, build, run; with clang and with g++."""
import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("LLMD_BUILD_DIR", ROOT / "build/release"))
COMPONENTS = ["core", "http", "relay", "text", "pd", "kv", "kv_transfer", "sched", "sched_plugin", "sched_testing", "engine", "llmd"]
LIBRARIES = ("libllmd", "libllmd_kv", "libllmd_sched", "libllmd_engine")


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    prefix = tmp_path_factory.mktemp("prefix")
    subprocess.run(["cmake", "--install", BUILD, "--prefix", prefix, "--component", "dev"], check=True, capture_output=True)
    return prefix


def run(*argv):
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_component_is_tried(prefix):
    exported = {re.fullmatch(r"llmd-(\w+)-targets.cmake", p.name)[1] for p in prefix.rglob("llmd-*-targets.cmake")}
    assert exported == set(COMPONENTS)


@pytest.mark.parametrize("compiler", ["clang++-19", "g++"])
@pytest.mark.parametrize("component", COMPONENTS)
def test_component(prefix, tmp_path, component, compiler):
    run("cmake", "-S", ROOT / "tests/consumer/project", "-B", tmp_path, "-G", "Ninja", f"-DCMAKE_CXX_COMPILER={compiler}",
        f"-DCMAKE_PREFIX_PATH={prefix}", f"-DCOMPONENT={component}")
    run("cmake", "--build", tmp_path)
    if component != "sched_plugin":
        run(tmp_path / "stranger")


def test_an_unknown_component_is_an_error(prefix, tmp_path):
    done = subprocess.run(["cmake", "-S", ROOT / "tests/consumer/project", "-B", tmp_path, "-G", "Ninja",
                           f"-DCMAKE_PREFIX_PATH={prefix}", "-DCOMPONENT=schde"], capture_output=True, text=True)
    assert done.returncode != 0 and "schde" in done.stderr


def test_the_public_headers_are_installed_and_nothing_else(prefix):
    installed = {p.relative_to(prefix / "include").as_posix() for p in (prefix / "include").rglob("*") if p.is_file()}
    public = {p.relative_to(ROOT / top / "include").as_posix() for top in LIBRARIES for p in (ROOT / top / "include").rglob("*.h")}
    assert installed == public


def test_a_plugin_links_no_llmd_library(prefix):
    text = (prefix / "lib/cmake/llmd/llmd-sched_plugin-targets.cmake").read_text()
    assert "INTERFACE_LINK_LIBRARIES" not in text and "INTERFACE IMPORTED" in text
