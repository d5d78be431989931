"""The machine's checks, on machines made of files."""

from pathlib import Path

import pytest
from machines import Machine

from longwire.app.doctor import capacity, ports
from longwire.app.doctor import machine as checks
from longwire.app.doctor.kernel import ClockState, Kernel, clock_state
from longwire.app.doctor.machine import Needs
from longwire.app.doctor.ports import Wanted
from longwire.app.doctor.report import Finding, State

ONE = Needs(nodes=1, max_connections=18_000, is_tls=False)
WELL = ClockState(is_synchronised=True, most_wrong_ms=12.0)


def found(machine: Machine, needs: Needs = ONE, clock: ClockState | None = WELL) -> dict[str, Finding]:
    return {finding.name: finding for finding in checks.look(machine.kernel(), needs, lambda: clock)}


def test_a_machine_in_order_has_nothing_to_tell(machine: Machine) -> None:
    assert {name for name, finding in found(machine).items() if finding.state is not State.OK} == set()


def test_too_few_open_files_fail_and_the_number_that_is_needed_is_told(machine: Machine) -> None:
    machine.limits(open_files=1_024)
    finding = found(machine)["open files"]
    assert finding.state is State.FAILURE
    assert finding.command == "ulimit -n 18256"


def test_an_unlimited_number_of_files_is_enough(machine: Machine) -> None:
    machine.limits(open_files="unlimited")
    assert found(machine)["open files"].state is State.OK


def test_the_limits_of_another_process_are_read_where_it_is_named(machine: Machine) -> None:
    machine.limits(open_files=512, pid="77")
    finding = next(iter(checks.look(machine.kernel("77"), ONE, lambda: WELL)))
    assert finding.state is State.FAILURE


def test_a_process_without_a_gateway_needs_few_files_and_no_queue_of_connections(machine: Machine) -> None:
    machine.limits(open_files=1_024)
    machine.sysctl("net.core.somaxconn", 128)
    findings = found(machine, Needs(0, 18_000, is_tls=False))
    assert findings["open files"].state is State.OK
    assert "net.core.somaxconn" not in findings


@pytest.mark.parametrize(
    ("sysctl", "value", "name", "state", "command"),
    [
        ("fs.file-max", 19_000, "open files of the machine", State.FAILURE, "sysctl -w fs.file-max=38560"),
        ("fs.nr_open", 4_096, "fs.nr_open", State.FAILURE, "sysctl -w fs.nr_open=18256"),
        ("net.core.somaxconn", 128, "net.core.somaxconn", State.WARNING, "sysctl -w net.core.somaxconn=4096"),
        (
            "net.ipv4.tcp_syncookies",
            0,
            "net.ipv4.tcp_max_syn_backlog",
            State.WARNING,
            "sysctl -w net.ipv4.tcp_max_syn_backlog=4096",
        ),
        (
            "net.ipv4.tcp_mem",
            "900 1000 1200",
            "net.ipv4.tcp_mem",
            State.WARNING,
            "sysctl -w net.ipv4.tcp_mem='18000 27000 36000'",
        ),
        (
            "net.netfilter.nf_conntrack_max",
            8_192,
            "net.netfilter.nf_conntrack_max",
            State.FAILURE,
            "sysctl -w net.netfilter.nf_conntrack_max=22500",
        ),
        ("kernel.pid_max", 100, "processes and threads", State.WARNING, ""),
        ("vm.overcommit_memory", 2, "vm.overcommit_memory", State.WARNING, "sysctl -w vm.overcommit_memory=0"),
    ],
)
def test_a_kernel_setting_that_is_too_small_is_told_with_what_mends_it(
    machine: Machine, sysctl: str, value: object, name: str, state: State, command: str
) -> None:
    machine.sysctl(sysctl, value)
    finding = found(machine)[name]
    assert (finding.state, finding.command) == (state, command)
    assert finding.advice


def test_swap_warns_only_where_the_kernel_is_eager_to_use_it(machine: Machine) -> None:
    machine.meminfo(16_384, 12_000, swap_mb=2_048)
    assert found(machine)["swap"].state is State.WARNING
    machine.sysctl("vm.swappiness", 1)
    assert found(machine)["swap"].state is State.OK


def test_huge_pages_for_everybody_are_warned_of(machine: Machine) -> None:
    machine.put("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never")
    assert found(machine)["transparent huge pages"].command.startswith("echo madvise > /sys/")


def test_the_cores_that_a_control_group_allows_are_what_counts(machine: Machine) -> None:
    machine.put("sys/fs/cgroup/system.slice/cpu.max", "50000 100000")
    findings = found(machine)
    assert findings["cores"].state is State.WARNING
    assert "allows 0.5" in findings["cores"].fact


def test_the_memory_of_the_first_version_of_control_groups_is_found(machine: Machine) -> None:
    machine.put("proc/self/cgroup", "5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/")
    machine.put("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", str(512 << 20))
    machine.put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")
    assert machine.kernel().group_memory_bytes() == 512 << 20
    assert machine.kernel().group_cores() is None


@pytest.mark.parametrize(
    ("clock", "state"),
    [
        (WELL, State.OK),
        (ClockState(is_synchronised=False, most_wrong_ms=16_000.0), State.WARNING),
        (ClockState(is_synchronised=True, most_wrong_ms=2_000.0), State.WARNING),
        (None, State.UNKNOWN),
    ],
)
def test_a_clock_that_nothing_steers_is_warned_of(machine: Machine, clock: ClockState | None, state: State) -> None:
    assert found(machine, clock=clock)["clock"].state is state


def test_the_kernel_of_this_machine_says_how_its_clock_is_steered_or_refuses() -> None:
    state = clock_state()
    assert state is None or state.most_wrong_ms >= 0


def test_a_machine_that_shows_nothing_leaves_its_checks_unknown(tmp_path: Path) -> None:
    findings = list(checks.look(Kernel(tmp_path), ONE, lambda: None))
    assert {finding.state for finding in findings} <= {State.OK, State.UNKNOWN}
    assert sum(finding.state is State.UNKNOWN for finding in findings) > 8


# -- how many connections ---------------------------------------------------------------------------------------------


def told(machine: Machine, needs: Needs = ONE) -> tuple[capacity.Capacity, Finding]:
    room = capacity.capacity(machine.kernel(), needs)
    assert room is not None
    return room, capacity.look(room, needs)


def test_the_settings_bound_the_connections_of_a_large_machine(machine: Machine) -> None:
    room, finding = told(machine)
    assert (room.connections, room.bound) == (18_000, "limits.max_connections of 1 node")
    assert finding.state is State.OK


def test_open_files_bound_them_and_more_workers_have_more_of_them(machine: Machine) -> None:
    machine.limits(open_files=10_256)
    room, finding = told(machine)
    assert (room.connections, room.bound) == (10_000, "open files of 1 node")
    assert (finding.state, "raise open files" in finding.advice) == (State.WARNING, True)
    room, _ = told(machine, Needs(4, 18_000, is_tls=False))
    assert (room.connections, room.bound) == (40_000, "open files of 4 nodes")


def test_the_memory_of_a_control_group_bounds_them_and_tls_takes_more_of_it(machine: Machine) -> None:
    machine.put("sys/fs/cgroup/system.slice/longwire.service/memory.max", str(256 << 20))
    machine.put("sys/fs/cgroup/memory.max", "max")
    room, _ = told(machine)
    assert room.bound == "memory"
    assert room.connections == int(((256 << 20) * 0.8 - capacity.NODE_BYTES) / (1_888 + 5_120))
    with_tls, finding = told(machine, ONE._replace(is_tls=True))
    assert with_tls.connections * (25_831 + 5_120) <= room.connections * (1_888 + 5_120)
    assert "with TLS" in finding.fact


def test_a_process_without_a_gateway_has_no_capacity(machine: Machine) -> None:
    assert capacity.capacity(machine.kernel(), Needs(0, 18_000, is_tls=False)) is None


# -- ports ------------------------------------------------------------------------------------------------------------


def looked(machine: Machine, *wanted: Wanted) -> dict[str, Finding]:
    return {finding.name: finding for finding in ports.look(machine.kernel(), list(wanted))}


def test_a_port_that_nobody_has_is_free(machine: Machine) -> None:
    assert looked(machine, Wanted("port", "127.0.0.1", 7300))["port 7300"] == Finding(
        "ports", "port 7300", State.OK, "free"
    )


def test_a_port_that_longwire_has_is_in_order(machine: Machine) -> None:
    machine.listens("127.0.0.1", 7300, 41, "/usr/bin/python3", "/opt/longwire/bin/longwire", "serve")
    finding = looked(machine, Wanted("port", "127.0.0.1", 7300))["port 7300"]
    assert (finding.state, finding.fact) == (State.OK, "Longwire listens (process 41)")


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "::", "::ffff:127.0.0.1"])
def test_a_port_that_another_program_has_fails_and_its_arguments_are_not_told(machine: Machine, address: str) -> None:
    machine.listens(address, 7380, 42, "/usr/sbin/nginx", "--password=hunter2")
    finding = looked(machine, Wanted("http_port", "127.0.0.1", 7380))["http_port 7380"]
    assert (finding.state, finding.fact) == (State.FAILURE, "taken by nginx (process 42)")
    assert "hunter2" not in "".join(finding)


def test_a_port_of_another_address_is_free(machine: Machine) -> None:
    machine.listens("10.1.2.3", 7380, 42, "/usr/sbin/nginx")
    machine.listens("::1", 7380, 43, "/usr/sbin/nginx")
    assert looked(machine, Wanted("http_port", "127.0.0.1", 7380))["http_port 7380"].fact == "free"


def test_a_port_whose_holder_may_not_be_seen_is_unknown(machine: Machine) -> None:
    machine.listens("0.0.0.0", 7300, None)
    finding = looked(machine, Wanted("port", "127.0.0.1", 7300))["port 7300"]
    assert (finding.state, finding.command) == (State.UNKNOWN, "sudo ss -ltnp sport = :7300")


def test_a_port_that_an_outgoing_connection_may_take_is_to_be_reserved(machine: Machine) -> None:
    machine.sysctl("net.ipv4.ip_local_port_range", "1024 65535")
    machine.sysctl("net.ipv4.ip_local_reserved_ports", "7300-7309")
    wanted = [Wanted("port", "127.0.0.1", 7300), Wanted("http_port", "127.0.0.1", 7380)]
    finding = looked(machine, *wanted)["net.ipv4.ip_local_port_range"]
    assert finding.state is State.WARNING
    assert finding.command == "sysctl -w net.ipv4.ip_local_reserved_ports=7300-7309,7380"
