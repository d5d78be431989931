"""Holds our WebSocket codec to the Autobahn test suite, as a server behind the real listener.

    autobahn.py ──starts──► longwire.testing.websocket_echo ◄──frames── wstest (fuzzing client, Python 2.7)

Run by ``make interop``. Sections 1–7, 9 and 10 of the suite, 301 cases; 12 and 13 are compression, which is
not negotiated here. It passes when every expected case ran and each is OK, NON-STRICT or INFORMATIONAL, in how
it behaved and in how it closed. The suite runs on Python 2.7 only; without one the script says so and fails,
for a check that did not run has not passed.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "autobahn"
SUITE = "autobahntestsuite==0.8.2"  # 25.10.1 does not run
AGENT = "longwire"

CASES_OF_SECTION = {"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "9": 54, "10": 1}
ACCEPTED = ("OK", "NON-STRICT", "INFORMATIONAL")

START_DEADLINE_S = 20
INSTALL_DEADLINE_S = 300
SUITE_DEADLINE_S = 1_800

Results = Mapping[str, Mapping[str, str | int]]


class CheckError(Exception):
    """The check could not run, or did not pass; the message says which."""


def find_python27() -> Path:
    """A Python 2.7 that starts: ``AUTOBAHN_PYTHON``, the path's, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [
        os.environ.get("AUTOBAHN_PYTHON"),
        *sorted(map(str, pyenv.glob("versions/2.7.*/bin/python2.7")), reverse=True),
        shutil.which("python2.7"),
    ]
    for candidate in filter(None, candidates):
        # A shim of pyenv stands on the path also where no 2.7 is behind it.
        check = [candidate, "-c", "import sys; sys.exit(sys.version_info[:2] != (2, 7))"]
        with contextlib.suppress(OSError):
            if subprocess.run(check, capture_output=True, timeout=20, check=False).returncode == 0:
                return Path(candidate)
    raise CheckError(
        "no Python 2.7 found, and the Autobahn suite runs on no other; "
        "install one (pyenv install 2.7.18) or name it in AUTOBAHN_PYTHON. NOTHING WAS CHECKED"
    )


def install_suite(python: Path) -> tuple[Path, dict[str, str]]:
    """The path of ``wstest`` and the environment it runs in; installed into the cache when it is missing."""
    environment = os.environ | {"PYTHONUSERBASE": str(CACHE)}
    for leaked in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        environment.pop(leaked, None)
    wstest = CACHE / "bin" / "wstest"
    if not wstest.exists():
        say(f"installing {SUITE} into {CACHE}")
        CACHE.mkdir(parents=True, exist_ok=True)
        command = [str(python), "-m", "pip", "install", "-q", "--user", SUITE]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=INSTALL_DEADLINE_S, check=False
        )
        if done.returncode != 0 or not wstest.exists():
            raise CheckError(f"{SUITE} could not be installed:\n{done.stderr.strip()}")
    return wstest, environment


@contextlib.contextmanager
def echo_server(module: str) -> Iterator[str]:
    """Our echo on a free port; gives its URL once it accepts, and stops it at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", module, "--port", str(port)])
    try:
        deadline = time.monotonic() + START_DEADLINE_S
        while True:
            if server.poll() is not None:
                raise CheckError(f"{module} ended with {server.returncode} before it served")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                if server.poll() is None:  # else a stranger took the port and answered
                    break
            if time.monotonic() > deadline:
                raise CheckError(f"{module} did not accept within {START_DEADLINE_S} s")
            time.sleep(0.05)
        yield f"ws://127.0.0.1:{port}/ws"
    finally:
        server.terminate()
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def run_suite(wstest: Path, python: Path, environment: dict[str, str], url: str, cases: list[str]) -> Results:
    """Run ``cases`` against ``url``; case name → what the suite's index says of it."""
    reports = CACHE / "reports"
    shutil.rmtree(reports, ignore_errors=True)  # an older run's index must not stand in for this one's
    spec = CACHE / "spec.json"
    spec.write_text(
        json.dumps(
            {
                "outdir": str(reports),
                "servers": [{"agent": AGENT, "url": url}],
                "cases": cases,
                "exclude-cases": [],
                "exclude-agent-cases": {},
            }
        )
    )
    log_path = CACHE / "wstest.log"
    with log_path.open("wb") as log:
        command = [str(python), str(wstest), "-m", "fuzzingclient", "-s", str(spec)]
        try:
            done = subprocess.run(
                command, env=environment, stdout=log, stderr=log, timeout=SUITE_DEADLINE_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise CheckError(f"the suite did not end within {SUITE_DEADLINE_S} s, see {log_path}") from None
    index = reports / "index.json"
    if not index.exists():
        raise CheckError(f"the suite ended with {done.returncode} and left no index, see {log_path}")
    results: Results = json.loads(index.read_text()).get(AGENT, {})
    return results


def is_accepted(result: Mapping[str, str | int]) -> bool:
    return result["behavior"] in ACCEPTED and result["behaviorClose"] in ACCEPTED


def judge(results: Results, expected: Mapping[str, int]) -> list[str]:
    """Print a row for each section; returns what is wrong, nothing if the suite passed."""
    wrong: list[str] = []
    row = "{:>7} {:>6} {:>9} {:>5} {:>11} {:>14} {:>7}"
    say(row.format("section", "cases", "expected", "OK", "NON-STRICT", "INFORMATIONAL", "failed"))
    for section, count in expected.items():
        found = {case: result for case, result in results.items() if case.split(".")[0] == section}
        kinds = Counter(result["behavior"] for result in found.values() if is_accepted(result))
        failed = [case for case, result in found.items() if not is_accepted(result)]
        passed = (kinds["OK"], kinds["NON-STRICT"], kinds["INFORMATIONAL"])
        say(row.format(section, len(found), count, *passed, len(failed)))
        if len(found) != count:
            wrong.append(f"section {section}: {len(found)} cases ran, {count} were expected")
        for case in failed:
            behavior, close = found[case]["behavior"], found[case]["behaviorClose"]
            wrong.append(f"case {case}: behavior {behavior}, close {close}")
    lenient = [case for case, result in results.items() if result["behavior"] == "NON-STRICT"]
    if lenient:
        say(f"NON-STRICT: {', '.join(sorted(lenient))}")
    return wrong


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sections", default=",".join(CASES_OF_SECTION), help="default: %(default)s")
    parser.add_argument("--url", help="check the echo server at this URL instead of starting ours")
    parser.add_argument("--module", default="longwire.testing.websocket_echo", help="the echo to start")
    arguments = parser.parse_args()
    sections = arguments.sections.split(",")
    unknown = set(sections) - set(CASES_OF_SECTION)
    if unknown:
        parser.error(f"sections are {', '.join(CASES_OF_SECTION)}; not {', '.join(sorted(unknown))}")
    expected = {section: CASES_OF_SECTION[section] for section in sections}
    start = time.monotonic()
    try:
        python = find_python27()
        wstest, environment = install_suite(python)
        server = contextlib.nullcontext(arguments.url) if arguments.url else echo_server(arguments.module)
        with server as url:
            results = run_suite(wstest, python, environment, url, [f"{section}.*" for section in sections])
    except CheckError as error:
        say(f"Autobahn: {error}")
        return 2
    wrong = judge(results, expected)
    for line in wrong:
        say(line)
    verdict = "FAILED" if wrong else "passed"
    say(f"Autobahn: {verdict}, {len(results)} cases in {time.monotonic() - start:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
