"""What docs/security.md promises and no other test holds: the source itself, folders, names, tokens, sockets, bombs."""

from __future__ import annotations

import ast
import gzip
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from engine import paths, recipe
from engine.cli import main
from engine.data import sources as rows
from engine.data import streams
from engine.errors import Exit, FtuiError
from engine.runs import directory
from engine.runs.directory import RunDir
from engine.secrets import HIDDEN, redacted
from engine.worker.service import Service
from tests.engine.runs.conftest import loose_umask, make_recipe  # noqa: F401

ROOT = Path(__file__).parents[2]
ANOTHER = 65534  # nobody
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")

# the source -----------------------------------------------------------------------------------------------------------


def calls() -> Iterator[tuple[Path, ast.Call, str]]:
    """Every call in our code: where, the call, the dotted name of what is called."""
    for package in ("engine", "tui"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    yield path.relative_to(ROOT), node, ast.unparse(node.func)


def given(call: ast.Call, name: str) -> str:
    """A keyword argument as it is written; empty where it is not given."""
    return next((ast.unparse(word.value) for word in call.keywords if word.arg == name), "")


def forbidden(call: ast.Call, name: str) -> str:
    """Why this call must not be in our code; empty where it may."""
    last = name.rpartition(".")[2]
    first = ast.unparse(call.args[0]) if call.args else ""
    if name in {"eval", "exec", "compile", "__import__"}:
        return "runs text as code"
    if name in {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn"}:
        return "a shell"
    if given(call, "shell") not in ("", "False"):
        return "a shell"
    if name.startswith("subprocess.") and first.startswith(("'", '"', "f'", 'f"')):
        return "a command that is no list"
    if name.partition(".")[0] in {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}:
        return "pickles"
    if name == "torch.load" and given(call, "weights_only") != "True":
        return "pickles"
    if name == "np.load" and given(call, "allow_pickle") != "False":
        return "pickles"
    loader = given(call, "Loader")
    if name in {"yaml.load", "yaml.load_all"} and loader not in ("_Loader", "yaml.SafeLoader", "yaml.CSafeLoader"):
        return "YAML that makes objects"
    if name in {"yaml.unsafe_load", "yaml.full_load"}:
        return "YAML that makes objects"
    if "AF_INET" in ast.unparse(call) or last in {"create_server", "start_server", "HTTPServer", "TCPServer"}:
        return "the network"
    if last == "extractall" or name == "tempfile.mktemp":
        return "a path that somebody else chooses"
    if last == "from_pretrained" and name.startswith("Auto") and not given(call, "trust_remote_code"):
        return "leaves trust_remote_code to the library, which may ask on a terminal"
    if name == "AutoModelForCausalLM.from_pretrained" and not given(call, "gguf_file"):
        return "" if given(call, "use_safetensors") == "True" else "weights that may be pickled"
    return ""


def test_no_call_in_the_source_opens_a_door() -> None:
    every = list(calls())
    assert len(every) > 3000, "the source was not found"
    found = [f"{path}:{call.lineno} {name}: {why}" for path, call, name in every if (why := forbidden(call, name))]
    assert not found, "\n".join(found)
    assert directory._Loader.__name__ in ("CSafeLoader", "SafeLoader")


@pytest.mark.parametrize(
    "code",
    [
        "eval(x)",
        "os.system('ls')",
        "subprocess.run(x, shell=True)",
        "subprocess.run(f'ls {x}')",
        "pickle.loads(x)",
        "torch.load(x)",
        "torch.load(x, weights_only=False)",
        "np.load(x)",
        "yaml.load(x)",
        "yaml.load(x, Loader=yaml.Loader)",
        "yaml.unsafe_load(x)",
        "socket.socket(socket.AF_INET)",
        "http.server.HTTPServer(x, y)",
        "archive.extractall(x)",
        "AutoTokenizer.from_pretrained(x)",
        "AutoModelForCausalLM.from_pretrained(x, trust_remote_code=False)",
    ],
)
def test_what_the_test_above_would_find(code: str) -> None:
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call) and forbidden(call, ast.unparse(call.func))


# folders and files ------------------------------------------------------------------------------------------------------


def test_folders_are_private_whatever_the_umask(loose_umask: None, private_folders: Path) -> None:  # noqa: F811
    (private_folders / "state" / "ftui").mkdir(parents=True, mode=0o755)
    made = [paths.state_dir(), paths.data_dir(), paths.config_dir(), paths.cache_dir(), paths.runs_dir()]
    run = directory.create(make_recipe(), {})
    paths.write_private(run.path / "some", "text")
    for path in [*made, run.path, *run.path.iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        assert path.stat().st_uid == os.geteuid()


@as_root
@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_folder_or_link_of_another_user_is_not_used(kind: str, private_folders: Path, tmp_path: Path) -> None:
    place = private_folders / "state" / "ftui"
    place.parent.mkdir(parents=True)
    if kind == "folder":
        place.mkdir()
    else:
        (tmp_path / "elsewhere").mkdir()
        place.symlink_to(tmp_path / "elsewhere")
    os.chown(place, ANOTHER, ANOTHER, follow_symlinks=False)
    for use in (paths.state_dir, paths.runs_dir, directory.all_runs, lambda: directory.create(make_recipe(), {})):
        with pytest.raises((PermissionError, FtuiError)) as caught:
            use()
        assert "another user" in str(caught.value) or "belongs to user" in str(caught.value)
    assert main(["runs"]) == Exit.PERMISSION
    assert not list((tmp_path / "elsewhere").glob("*")) if kind == "link" else True


def test_a_file_in_place_of_a_folder(private_folders: Path) -> None:
    private_folders.mkdir()
    (private_folders / "cache").mkdir()
    (private_folders / "cache" / "ftui").touch()
    with pytest.raises(NotADirectoryError):
        paths.cache_dir()


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A link among the runs is no run; a link in a file's place is replaced, not written through."""
    run = directory.create(make_recipe("real"), {})
    (run.path.parent / "2026-01-01-0000-link").symlink_to(run.path)
    assert directory.all_runs() == [run]
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for write in (
        lambda at: paths.write_private(at, "new"),
        lambda at: os.close(os.open(at, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW)),
    ):
        at = tmp_path / "at"
        at.unlink(missing_ok=True)
        at.symlink_to(victim)
        try:
            write(at)
        except OSError as error:
            assert error.errno == 40  # ELOOP
        assert victim.read_text() == "mine"
    from engine.runs.journal import Writer
    from engine.runs.processes import open_log

    for open_it in (Writer, lambda path: open_log(path).__enter__()):
        link = run.path / "linked"
        link.unlink(missing_ok=True)
        link.symlink_to(victim)
        with pytest.raises(OSError, match="symbolic links"):
            open_it(link)


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../../etc/passwd",
        "/etc/passwd",
        "a/../../b",
        "a\0b",
        "a\nb",
        ".hidden",
        "-rf",
        "~root",
        "$(reboot)",
        "\u202egpj.exe",
        "a\u2215b\u2044c",
        "．．／x",
        "𝔞" * 300,
        "é" * 500,
        "",
        "   ",
        "CON",
        "\ud800",
        "%2e%2e%2f",
    ],
)
def test_a_run_stays_in_the_folder_of_runs(name: str) -> None:
    slug = recipe.slug(name)
    assert slug and "/" not in slug and "\0" not in slug and not slug.startswith((".", "-")) and slug.isprintable()
    made = make_recipe()
    made.name = slug if "\ud800" in name else name  # YAML holds no half characters
    run = directory.create(made, {})
    assert run.path.parent == paths.runs_dir() and run.path.resolve().parent == paths.runs_dir().resolve()
    assert directory.find(run.name) == run


# tokens --------------------------------------------------------------------------------------------------------------------

KEPT = "hf_KeptInTheFileOfTheHubsClient"


@pytest.fixture
def kept_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    home = tmp_path / "hub"
    home.mkdir()
    (home / "token").write_text(KEPT + "\n")
    (home / "stored_tokens").write_text("[work]\nhf_token = hf_AnotherOfThem\n")
    monkeypatch.setenv("HF_HOME", str(home))
    return KEPT


def test_tokens_in_files_addresses_and_headers_are_hidden(kept_token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://somebody:open-sesame@proxy:8080")
    for text in (
        f"401 for {KEPT}",
        "switched to hf_AnotherOfThem",
        "cannot reach http://somebody:open-sesame@proxy:8080 (open-sesame)",
        "https://user:pass@huggingface.co/x: 403",
        "authorization: Bearer eyJhbGciOi.JIUzI1-NiIs",
        "hf_abcdefghijABCDEFGHIJ0123456789abcd is expired",
    ):
        hidden = redacted(text)
        assert HIDDEN in hidden, text
        for word in (KEPT, "hf_AnotherOfThem", "open-sesame", "user:pass", "eyJ", "hf_abc"):
            assert word not in hidden
    plain = "https://huggingface.co/a/b at 10:30, bearer of news, hf_hub, a: b@c"
    assert redacted(plain) == plain


def test_an_error_holds_no_token(kept_token: str) -> None:
    error = FtuiError(Exit.NETWORK, f"no {KEPT}", f"at {KEPT}", f"not {KEPT}")
    assert KEPT not in str([*error.lines(), error.as_dict(), str(error), error.args])


@pytest.mark.parametrize("field", ["name", "model", "value"])
def test_a_recipe_does_not_quote_a_token(kept_token: str, field: str) -> None:
    made = make_recipe()
    if field == "name":
        made.name = f"run with {KEPT}"
    elif field == "model":
        made.model.source = f"/models/{KEPT}"
    else:
        made.data.values["name"] = KEPT
    with pytest.raises(FtuiError, match="would quote a token"):
        directory.create(made, {})
    assert not list(paths.runs_dir().iterdir())


# sockets -------------------------------------------------------------------------------------------------------------------

STRANGER = """
import os, socket, sys
os.chdir(sys.argv[1])
os.setgid(65534); os.setuid(65534)
wire = socket.socket(socket.AF_UNIX)
wire.settimeout(30)
wire.connect("s.sock")
try:
    wire.sendall(b'{"op":"status"}\\n')
    print(wire.recv(100))
except ConnectionError:
    print(b"")
"""


@as_root
def test_a_socket_answers_its_own_user_only(tmp_path: Path) -> None:
    """Even where its folder and mode would let another in."""
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o755)
    service = Service(place / "s.sock", lambda: {"state": "ready"})
    service.open()
    try:
        assert stat.S_IMODE((place / "s.sock").stat().st_mode) == 0o600
        from engine.runs import chat

        assert chat.answers(place / "s.sock")
        (place / "s.sock").chmod(0o777)
        done = subprocess.run([sys.executable, "-c", STRANGER, str(place)], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "b''"
    finally:
        service.close()


@as_root
def test_a_socket_of_another_user_is_not_talked_to(tmp_path: Path) -> None:
    from engine.runs import chat

    tmp_path.chmod(0o777)
    listening = (
        "import os,socket,time\nos.setuid(65534)\ns=socket.socket(socket.AF_UNIX)\ns.bind('s.sock')\ns.listen()\n"
    )
    listening += "print('up', flush=True)\ns.accept()[0].sendall(b'{}\\n')\ntime.sleep(5)"
    stranger = subprocess.Popen([sys.executable, "-c", listening], stdout=subprocess.PIPE, cwd=tmp_path)
    try:
        assert stranger.stdout is not None and stranger.stdout.readline() == b"up\n"
        assert not chat.answers(tmp_path / "s.sock")
        with pytest.raises(FtuiError, match="no worker answers"):
            run = RunDir(tmp_path)
            run.socket_path = tmp_path / "s.sock"
            chat.Chat(run)
    finally:
        stranger.kill()
        stranger.wait()


def test_same_user_is_told_by_the_kernel() -> None:
    from engine.runs import chat

    left, right = socket.socketpair()
    with left, right:
        assert chat.same_user(left)


# packed files ----------------------------------------------------------------------------------------------------------------


def packed_gzip(text: bytes, times: int) -> bytes:
    return b"".join([gzip.compress(text)] * times)


def packed_zstd(text: bytes, times: int) -> bytes:
    return b"".join([zstandard.compress(text, 19)] * times)


@pytest.mark.parametrize(("suffix", "pack"), [("gz", packed_gzip), ("zst", packed_zstd)])
def test_a_file_that_unpacks_without_end_is_left_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, pack: Callable[[bytes, int], bytes]
) -> None:
    """The limit is lowered, so that the bomb need not be one."""
    monkeypatch.setattr(streams, "_MOST", 1 << 22)
    path = tmp_path / f"rows.jsonl.{suffix}"
    path.write_bytes(pack(b'{"text": "once again"}\n' * 100_000, 20))
    assert path.stat().st_size < 200_000
    flaws: list[FtuiError] = []
    count = sum(1 for _ in rows.read(path, lambda row, line, error, column, repaired: flaws.append(error)))
    assert 100_000 <= count < 400_000
    (flaw,) = flaws
    assert flaw.code == Exit.DATA_SYNTAX and "unpacks to more than" in flaw.cause


def test_one_endless_row_in_a_packed_file_takes_little_memory(tmp_path: Path) -> None:
    """The row has 300 MB, and no more than MAX_LINE of it are ever held."""
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b"0" * 10_000_000, 1) * 30)
    code = """
import resource, sys
from engine.data import sources as rows
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(sum(1 for _ in rows.read(sys.argv[1], lambda row, line, error, *_: print(error.cause))))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=ROOT, check=True)
    cause, count, grown = done.stdout.splitlines()
    assert "longer than 32 MB" in cause and count == "0"
    assert int(grown) < 150_000, grown
