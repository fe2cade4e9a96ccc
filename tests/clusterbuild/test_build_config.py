"""The dispatcher's configuration."""

import os
from pathlib import Path

import pytest

from clusterbuild import config
from clusterbuild.config import Settings
from clusterdep.api.errors import Fault


def written(tmp_path, text):
    path = tmp_path / "clusterbuild.toml"
    path.write_text(text)
    return path


def test_defaults_work(monkeypatch, tmp_path):
    monkeypatch.delenv("CLUSTERBUILD_STATE", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    settings = config.load(None)
    root = Path("/var/db/clusterbuild")
    assert settings.state == (root if os.geteuid() == 0 else tmp_path / "clusterbuild")
    assert settings.address == f"unix:{settings.state}/clusterbuild.sock"
    assert settings.clusterdep_address.endswith("clusterdep.sock")
    assert settings.name == Settings(dispatcher=settings.name).name


def test_everything_can_be_set(tmp_path):
    path = written(
        tmp_path,
        """
        state = "~/x"
        dispatcher = "farm-1"
        clusterdep = "unix:/run/clusterdep.sock"
        listen = ["unix:/run/clusterbuild.sock", "tls:[::]:7422"]
        tls_certificate = "b.crt"
        tls_key = "/etc/b.key"
        clusterdep_ca = "ca.crt"
        clusterdep_token_file = "~/token"
        metrics = "127.0.0.1:9111"
        slots = 4
        sandbox = "none"
        build_user = "pbulk"
        search_path = "/bin"
        time_limit = "90m"
        stage_time_limit = 30
        log_limit = "2G"
        log_attempts = 3
        log_level = "debug"
        """,
    )
    settings = config.load(path)
    assert settings == Settings(
        state=Path.home() / "x",
        dispatcher="farm-1",
        clusterdep="unix:/run/clusterdep.sock",
        listen=("unix:/run/clusterbuild.sock", "tls:[::]:7422"),
        tls_certificate=tmp_path / "b.crt",
        tls_key=Path("/etc/b.key"),
        clusterdep_ca=tmp_path / "ca.crt",
        clusterdep_token_file=Path.home() / "token",
        metrics="127.0.0.1:9111",
        slots=4,
        sandbox="none",
        build_user="pbulk",
        search_path="/bin",
        time_limit=5400.0,
        stage_time_limit=30.0,
        log_limit=2 * 2**30,
        log_attempts=3,
        log_level="debug",
    )
    assert {name for name in Settings.__dataclass_fields__} == set(config.KEYS)
    assert set(config.RELOADED) <= set(config.KEYS)


def test_dispatchers_have_names_of_their_own(tmp_path):
    names = {Settings(state=tmp_path / name).name for name in "ab"}
    assert len({*names, Settings().name}) == 3
    assert Settings(state=tmp_path / "a").name in names, "the same after a restart"
    assert Settings(state=tmp_path / "a", dispatcher="farm").name == "farm"


def test_the_command_line_wins(tmp_path):
    path = written(tmp_path, "slots = 4\n")
    assert config.load(path, slots=2, sandbox=None).slots == 2


def test_all_problems_at_once_with_their_lines(tmp_path):
    path = written(tmp_path, 'slots = -1\n\nslotz = 3\ntime_limit = "soon"\n[host]\nname = 1\n')
    with pytest.raises(Fault) as caught:
        config.load(path)
    lines = str(caught.value).splitlines()
    assert lines[1] == f"{path}:1: slots must be a whole number, 0 or more, and is -1"
    assert lines[2].startswith(f"{path}:3: unknown key 'slotz'; known are build_user, ")
    assert lines[3].startswith(f"{path}:4: time_limit must be a time, as 90, ")
    assert lines[4].startswith(f"{path}:5: unknown key 'host'")
    assert caught.value.exit_code == os.EX_CONFIG


@pytest.mark.parametrize(
    "text",
    [
        "slots = true",
        'slots = "4"',
        'dispatcher = "a b"',
        'sandbox = "jail"',
        'listen = "127.0.0.1:1"',
        'listen = "unix:relative"',
        f'listen = "unix:/{"x" * 200}"',
        'metrics = "9111"',
        "time_limit = -1",
        'log_limit = "many"',
        "log_limit = 1.5",
        "state = 3",
        'insecure_plaintext = "yes"',
        "clusterdep_ca = 1",
        "search_path = 3",
        'log_level = "loud"',
    ],
)
def test_what_a_value_must_be(tmp_path, text):
    with pytest.raises(Fault, match=text.partition(" ")[0] + " must be"):
        config.load(written(tmp_path, text))


def test_a_file_that_is_no_toml_or_not_there(tmp_path):
    with pytest.raises(Fault, match=r"is not TOML: .*line 1"):
        config.load(written(tmp_path, "slots 4"))
    with pytest.raises(Fault, match="cannot be read: No such file"):
        config.load(tmp_path / "absent.toml")


def test_what_must_be_set_together(tmp_path):
    with pytest.raises(Fault, match="listen has tls:, for which tls_key must be set"):
        config.load(written(tmp_path, 'listen = "tls:h:1"\ntls_certificate = "x"\n'))
    with pytest.raises(Fault, match="set insecure_plaintext to the role"):
        config.load(written(tmp_path, 'listen = "plaintext:h:1"\n'))


def test_what_is_shown_to_clusterdep(monkeypatch, tmp_path):
    monkeypatch.setenv("CLUSTERDEP_CA", "/env/ca")
    monkeypatch.setenv("CLUSTERDEP_TOKEN_FILE", "/env/token")
    path = written(tmp_path, 'clusterdep_token_file = "mine"\n')
    access = config.load(path).access
    assert (access.ca, access.token_file) == (Path("/env/ca"), tmp_path / "mine")
    assert config.load(path, clusterdep_ca=Path("/cli/ca")).access.ca == Path("/cli/ca")


def test_the_socket_is_always_there(tmp_path):
    settings = config.load(
        written(tmp_path, 'insecure_plaintext = "viewer"\nlisten = "plaintext:[::1]:7"\n')
    )
    assert settings.ports.places == (settings.address, "plaintext:[::1]:7")
    assert settings.address.startswith("unix:/")
