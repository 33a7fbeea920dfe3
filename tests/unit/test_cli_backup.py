from __future__ import annotations

import json

import pytest

from stream_cluster.state.database import database_path
from stream_cluster.state.lock import DirectoryLock
from tests.support.backups import contents
from tests.support.cli import invoke
from tests.support.partitions import message, open_partition, records, vectors

ARGS = ("--topic", "events")


@pytest.fixture
def state(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir()
    partition = open_partition(folder)
    partition.apply(records([message(number, vector) for number, vector in enumerate(vectors(120))]))
    partition.close()
    return folder


def in_json(*arguments):
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_backup_list_verify_and_restore_by_hand(state, tmp_path):
    to = str(tmp_path / "backups")
    (made,) = in_json("backup", str(state), "--to", to)["backups"]
    assert (made["partition"], made["next_offset"], made["objects"], made["epoch"]) == (0, 120, 120, 0)
    (listed,) = in_json("restore", "--list", "--from", to, *ARGS)["backups"]
    assert listed == made
    text = invoke("restore", "--list", "--from", to, *ARGS)
    assert made["name"] in text.stdout
    (checked,) = in_json("verify", "--backups", "--from", to, *ARGS)["checked"]
    assert (checked["next_offset"], checked["objects"], checked["problems"]) == (120, 120, [])
    new = tmp_path / "new"
    (restored,) = in_json("restore", str(new), "--from", to, *ARGS)["restored"]
    assert restored == made
    assert contents(database_path(new, 0)) == contents(database_path(state, 0))
    (checked,) = in_json("verify", str(new))["checked"]
    assert checked["problems"] == []
    open_partition(new).close()
    assert sorted(path.name for path in new.iterdir()) == ["lock", "partition-0.sqlite"]


def test_backup_beside_the_service_that_holds_the_state(state, tmp_path):
    with DirectoryLock(state):
        partition = open_partition(state)
        (made,) = in_json("backup", str(state), "--to", str(tmp_path / "backups"))["backups"]
        partition.close()
    assert made["next_offset"] == 120


def test_an_older_backup_can_be_named(state, tmp_path):
    to = str(tmp_path / "backups")
    (first,) = in_json("backup", str(state), "--to", to)["backups"]
    partition = open_partition(state)
    partition.apply(records([message(500, vectors(1)[0])], first_offset=120))
    partition.close()
    in_json("backup", str(state), "--to", to)
    assert [one["next_offset"] for one in in_json("restore", "--list", "--from", to, *ARGS)["backups"]] == [
        121,
        120,
    ]
    named = ("--partition", "0", "--name", first["name"])
    (restored,) = in_json("restore", str(tmp_path / "old"), "--from", to, *named, *ARGS)["restored"]
    assert restored["next_offset"] == 120
    (newest,) = in_json("verify", "--backups", "--newest", "--from", to, *ARGS)["checked"]
    assert newest["next_offset"] == 121


def test_the_place_of_the_settings_is_used_where_none_is_named(state, tmp_path):
    config = tmp_path / "settings.toml"
    config.write_text(f'[backup]\ndirectory = "{tmp_path / "backups"}"\n')
    (made,) = in_json("backup", str(state), "--config", str(config))["backups"]
    (listed,) = in_json("restore", "--list", "--config", str(config))["backups"]
    assert listed == made


def test_a_damaged_newest_backup_is_told_and_an_older_one_restored(state, tmp_path):
    to = tmp_path / "backups"
    in_json("backup", str(state), "--to", str(to))
    partition = open_partition(state)
    partition.apply(records([message(500, vectors(1)[0])], first_offset=120))
    partition.close()
    (newest,) = in_json("backup", str(state), "--to", str(to))["backups"]
    manifest = json.loads((to / "events" / "0" / newest["name"]).read_text())
    data = to / "events" / "0" / manifest["data"]
    data.write_bytes(data.read_bytes()[:-7])
    verified = invoke("verify", "--backups", "--from", str(to), *ARGS, "--json")
    assert verified.exit_code == 4
    assert [bool(one["problems"]) for one in json.loads(verified.stdout)["checked"]] == [True, False]
    result = invoke("restore", str(tmp_path / "new"), "--from", str(to), *ARGS, "--json")
    assert result.exit_code == 0
    assert "trying an older one" in result.stderr
    assert json.loads(result.stdout)["restored"][0]["next_offset"] == 120
    named = invoke(
        *("restore", str(tmp_path / "named"), "--from", str(to), "--partition", "0"),
        *("--name", newest["name"], *ARGS),
    )
    assert named.exit_code == 4
    assert not database_path(tmp_path / "named", 0).exists()


def test_a_database_is_never_replaced_by_hand(state, tmp_path):
    to = str(tmp_path / "backups")
    in_json("backup", str(state), "--to", to)
    before = database_path(state, 0).read_bytes()
    result = invoke("restore", str(state), "--from", to, *ARGS)
    assert result.exit_code == 4
    assert "there is a database" in result.stderr
    assert database_path(state, 0).read_bytes() == before
    with DirectoryLock(tmp_path / "held"):
        assert invoke("restore", str(tmp_path / "held"), "--from", to, *ARGS).exit_code == 4


def test_a_damaged_state_is_told_with_exit_code_4(state):
    path = database_path(state, 0)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)
    result = invoke("verify", str(state))
    assert result.exit_code == 4, result.output
    assert "damaged" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("backup", "{state}"), "no place for backups"),
        (("backup", "{empty}", "--to", "{to}"), "found no partition-"),
        (("backup", "{state}", "--to", "{to}", "--partition", "7"), "found no partition-7"),
        (("restore", "--list", "--from", "{to}"), "found no backups of topic events"),
        (("verify",), "STATE_DIR"),
        (("verify", "{state}/nowhere"), "no such directory"),
    ],
)
def test_what_cannot_be_done_is_refused(state, tmp_path, arguments, problem):
    places = {"state": state, "empty": tmp_path / "empty", "to": tmp_path / "to"}
    (tmp_path / "empty").mkdir()
    result = invoke(*(argument.format(**places) for argument in arguments))
    assert result.exit_code == 2
    assert problem in result.stderr


def test_a_restore_needs_a_directory_and_a_name_needs_a_partition(state, tmp_path):
    to = str(tmp_path / "backups")
    in_json("backup", str(state), "--to", to)
    assert invoke("restore", "--from", to, *ARGS).exit_code == 2
    result = invoke("restore", str(tmp_path / "new"), "--from", to, "--partition", "0", "--name", "x", *ARGS)
    assert result.exit_code == 2
    assert "found no backup x" in result.stderr
