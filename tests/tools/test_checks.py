"""Each check of tools/ must catch the seeded bad examples under tests/data/bad and pass on the tree itself."""
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BAD = ROOT / "tests" / "data" / "bad"


def run(tool, *args):
    return subprocess.run([sys.executable, ROOT / "tools" / tool, *args], capture_output=True, text=True)


@pytest.mark.parametrize("tool", ["check_layers.py", "check_coawait.py", "check_docs.py", "check_clock.py"])
def test_the_tree_is_clean(tool):
    result = run(tool)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("expected", [
    "libllmd_sched/include/llmd/sched/bad.h:2: third-party header absl/strings/string_view.h",
    "libllmd_sched/include/llmd/sched/bad.h:3: sched may not include llmd/engine/engine.h",
    "libllmd_kv/src/bad.cc:1: kv may not include llmd/http/server.h",
    "libllmd_kv/src/bad.cc:2: coroutines live in",
    "services/demo/main.cc:101: main.cc has 101 lines",
])
def test_layers_catches(expected):
    result = run("check_layers.py", BAD / "layers")
    assert result.returncode == 1
    assert expected in result.stdout


def test_coawait_catches_each_rule_and_nothing_else():
    result = run("check_coawait.py", BAD / "coawait")
    assert result.returncode == 1
    lines = [line.split(": ", 1) for line in result.stdout.strip().split("\n")]
    assert [(place, rule[:3]) for place, rule in lines] == [
        ("services/bad.cc:4", "C-3"), ("services/bad.cc:1", "C-1"), ("services/bad.cc:2", "C-1"), ("services/bad.cc:3", "C-1")]


def test_headers_catches_a_header_that_needs_another():
    result = run("check_headers.py", BAD / "headers", "--compiler", "clang++-19")
    assert result.returncode == 1
    assert "libllmd/include/llmd/bad.h" in result.stdout


def test_docs_catches_each_rule_and_nothing_else():
    result = run("check_docs.py", BAD / "docs")
    assert result.returncode == 1
    assert result.stdout.strip().split("\n") == [
        "libllmd/src/bad.cc:1: there is no page endpoint-picker.md",
        'libllmd/src/bad.cc:4: docs/reference/scorers.md has no heading "Weights"',
        "libllmd/src/bad.cc:5: a section sign: name the heading instead",
        "libllmd/src/bad.cc:6: requirement 12 looks like the number of a case or requirement",
        "tools/bad.py:1: issue 7 looks like the number of a case or requirement",
        "tools/bad.py:1: there is no page docs/nowhere.md",
        "docs/guide.md:4: link to reference/filters.md, which is not there",
        "docs/guide.md:4: there is no page reference/filters.md",
        "docs/guide.md:5: reference/scorers.md has no heading #no-heading-but-code",
        "docs/guide.md:6: guide.md has no heading #elsewhere",
        "docs/guide.md:7: there is no page reference/pickers.md",
        "docs/guide.md:8: G4 looks like the number of a case or requirement",
        "docs/guide.md:8: S3-10 looks like the number of a case or requirement",
    ]


def test_docs_finds_a_page_that_was_taken_away(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# A\n\n[b](b.md#b)\n")
    (tmp_path / "docs" / "b.md").write_text("# B\n")
    assert run("check_docs.py", tmp_path).returncode == 0
    (tmp_path / "docs" / "b.md").unlink()
    result = run("check_docs.py", tmp_path)
    assert "docs/a.md:3: link to b.md, which is not there" in result.stdout


def test_clock_catches_each_source_of_time_and_chance_and_nothing_else():
    result = run("check_clock.py", BAD / "clock")
    assert result.returncode == 1
    places = [line.split(": ", 1)[0] for line in result.stdout.strip().split("\n")]
    assert places == ["libllmd_sched/src/bad.cc:%d" % line for line in range(1, 15)] + [
        "libllmd_kv/src/bad.cc:1", "libllmd_sched/src/data/file_watch.cc"]
