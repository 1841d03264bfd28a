"""Which compilers the build takes, and the compile cache it finds by itself."""
import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def configure(tmp_path, body, env=None):
    (tmp_path / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.25)\ninclude({ROOT}/cmake/toolchain.cmake)\nproject(probe LANGUAGES NONE)\n{body}\n")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CMAKE_")}
    return subprocess.run(["cmake", "-S", tmp_path, "-B", tmp_path / "build"], capture_output=True, text=True, env={**clean, **(env or {})})


def check(tmp_path, name, version):
    run = configure(tmp_path, f'set(CMAKE_CXX_COMPILER_ID {name})\nset(CMAKE_CXX_COMPILER_VERSION {version})\nllmd_check_compiler()')
    return run.returncode, run.stderr


@pytest.mark.parametrize("name, version", [("GNU", "12.2.0"), ("GNU", "14.1"), ("Clang", "19.1.7"), ("Clang", "20.0")])
def test_new_compilers_build_it(tmp_path, name, version):
    assert check(tmp_path, name, version)[0] == 0


@pytest.mark.parametrize("name, version", [("GNU", "11.4.0"), ("Clang", "14.0.6"), ("Clang", "18.1.8"), ("AppleClang", "17.0"), ("MSVC", "19.40")])
def test_others_are_refused_with_the_line_that_helps(tmp_path, name, version):
    code, error = check(tmp_path, name, version)
    assert code != 0 and f"this is {name} {version}" in " ".join(error.split())
    assert "apt-get install g++" in error and "apt-get install clang-19 lld-19" in error


LAUNCHER = 'message(STATUS "launcher [${CMAKE_CXX_COMPILER_LAUNCHER}]")'


def test_ccache_is_used_when_nobody_names_a_launcher(tmp_path):
    out = configure(tmp_path, LAUNCHER).stdout
    if shutil.which("ccache"):
        assert f"launcher [env;CCACHE_BASEDIR={tmp_path};CCACHE_NOHASHDIR=1;{shutil.which('ccache')}]" in out
    else:
        assert "launcher []" in out
    shutil.rmtree(tmp_path / "build")
    assert "launcher []" in configure(tmp_path, LAUNCHER, {"CMAKE_CXX_COMPILER_LAUNCHER": "other"}).stdout
