"""The soak's own checks can fail, and a short one passes (scripts/soak.sh runs long ones)."""
import subprocess
import sys

import pytest

import soak
import soak_members
from conftest import ROOT, build_dir


def timeline(tmp_path, *steps):
    """Members that changed at the given microseconds."""
    members = soak_members.Members(tmp_path / "endpoints.yaml")
    for at, ports in steps:
        members.write(set(ports))
        members.times[-1] = at
    return members


def test_a_destination_must_have_been_a_member_at_the_time(tmp_path):
    second = 1_000_000
    members = timeline(tmp_path, (0, [1, 2]), (10 * second, [2]), (20 * second, [2, 3]))
    assert members.check(5 * second, 5 * second, 1)
    assert members.check(10 * second + 1000, 10 * second + 2000, 1), "the file was only just changed"
    assert members.lag_us == 1000
    assert not members.check(12 * second, 12 * second, 1), "it had left"
    assert not members.check(5 * second, 5 * second, 3), "it had not come yet"
    assert members.check(19 * second, 21 * second, 3), "it came while the request was under way"


@pytest.mark.parametrize("status, destination, complaint", [
    (0, "127.0.0.1:2", None), (0, "127.0.0.1:9", "no member"), (0, "-", "no member"), (503, "-", "had members"),
    (429, "-", "answer 429"), (500, "-", "answer 500"), (-1, "-", "broke the protocol")])
def test_every_wrong_answer_is_a_violation(tmp_path, capsys, status, destination, complaint):
    violations = soak_members.Violations()
    picker = type("Picker", (), {"members": timeline(tmp_path, (0, [1, 2])), "grpc_port": 0})
    soak.Load("build", picker, violations).check(5_000_000, 5_000_100, status, destination)
    assert violations.count == (complaint is not None)
    assert (complaint or "") in capsys.readouterr().out


def test_503_is_right_while_the_pool_is_empty(tmp_path):
    violations = soak_members.Violations()
    picker = type("Picker", (), {"members": timeline(tmp_path, (0, [1]), (9_000_000, []), (12_000_000, [1])), "grpc_port": 0})
    load = soak.Load("build", picker, violations)
    load.check(10_000_000, 10_000_100, 503, "-")
    assert violations.count == 0
    load.check(14_000_000, 14_000_100, 503, "-")
    assert violations.count == 1


def test_the_slope_is_that_of_a_line():
    assert soak.slope_per_minute([(t, 40 + t / 30) for t in range(60)]) == pytest.approx(2)
    assert soak.slope_per_minute([(0, 1), (0, 2)]) == 0


def test_a_short_soak_passes():
    if not (build_dir() / "bench" / "soak_load").exists():
        pytest.skip("soak_load is not built (LLMD_BUILD_BENCH)")
    done = subprocess.run([sys.executable, str(ROOT / "tests" / "e2e" / "soak.py"), str(build_dir()), "--minutes", "0.1",
                           "--share", "0.3"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "soak: 0 violations" in done.stdout
