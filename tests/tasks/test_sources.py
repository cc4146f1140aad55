"""Where rows come from: a mirror, the Hub, raw files where `datasets` fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import datasets
import huggingface_hub
import pandas as pd
import pytest

from culnig_tl.errors import TaskError
from culnig_tl.tasks import load_task
from culnig_tl.tasks.sources import DATA_DIR, Source, data_folder, find, read

from .builders import write_csv, write_jsonl

SOURCE = Source("org/name", "config", "test", ("raw/wanted.jsonl", "raw/*.csv"), moved_to=("new/name",))


def write_readme(folder: Path, file: str, split: str = "test") -> None:
    (folder / "README.md").write_text(
        f"---\nconfigs:\n- config_name: config\n  data_files:\n  - split: {split}\n    path: {file}\n---\n"
    )


def test_the_mirror_is_an_argument_or_a_variable(tmp_path, monkeypatch):
    assert data_folder() is None
    monkeypatch.setenv(DATA_DIR, str(tmp_path))
    assert data_folder() == tmp_path
    (tmp_path / "other").mkdir()
    assert data_folder(tmp_path / "other") == tmp_path / "other"
    monkeypatch.setenv(DATA_DIR, "")
    assert data_folder() is None
    with pytest.raises(TaskError, match="data folder .*nowhere does not exist"):
        data_folder(tmp_path / "nowhere")


def test_a_mirror_without_the_data_set_is_an_error(tmp_path):
    with pytest.raises(TaskError, match=r"has no org/name; put the data set there"):
        find(SOURCE, tmp_path)
    (tmp_path / "new" / "name").mkdir(parents=True)
    assert find(SOURCE, tmp_path) == tmp_path / "new" / "name"


def test_datasets_builds_the_mirror(tmp_path):
    folder = tmp_path / "org" / "name"
    write_jsonl(folder / "some" / "file.jsonl", [{"id": 1}, {"id": 2}])
    write_readme(folder, "some/file.jsonl")
    rows = read(SOURCE, tmp_path)
    assert rows.frame["id"].tolist() == [1, 2]
    assert rows.where == str(folder / "some" / "file.jsonl") and rows.origin == str(folder)


def test_a_changed_file_is_read_again(tmp_path):
    folder = tmp_path / "org" / "name"
    for rows in ([{"id": 1}], [{"id": 7}, {"id": 8}]):
        write_jsonl(folder / "some" / "file.jsonl", rows)
        write_readme(folder, "some/file.jsonl")
        assert read(SOURCE, tmp_path).frame["id"].tolist() == [row["id"] for row in rows]


def test_mirrors_of_one_name_are_told_apart(tmp_path):
    for name in ("first", "second"):
        folder = tmp_path / name / "org" / "name"
        write_jsonl(folder / "some" / "file.jsonl", [{"id": name}])
        write_readme(folder, "some/file.jsonl")
        assert read(SOURCE, tmp_path / name).values("id") == [name]


def test_a_raw_source_leaves_datasets_out(tmp_path, monkeypatch):
    source = replace(SOURCE, raw=True)
    monkeypatch.setattr(datasets, "load_dataset_builder", None)
    write_csv(tmp_path / "org" / "name" / "raw" / "a.csv", [{"id": "1"}])
    assert read(source, tmp_path).values("id") == ["1"]
    (tmp_path / "org" / "name" / "raw" / "a.csv").unlink()
    with pytest.raises(
        TaskError, match="org/name holds no readable config, split 'test', and no raw/wanted.jsonl"
    ):
        read(source, tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **kwargs: str(tmp_path / "hub"))
    write_csv(tmp_path / "hub" / "raw" / "a.csv", [{"id": "2"}])
    assert read(source).values("id") == ["2"] and read(source).origin == "org/name"


def test_raw_files_where_datasets_fails(tmp_path):
    folder = tmp_path / "org" / "name"
    write_csv(folder / "raw" / "a.csv", [{"id": "1", "x": "None"}])
    write_csv(folder / "raw" / "b.csv", [{"id": "2", "x": ""}])
    write_readme(folder, "missing.csv")
    rows = read(SOURCE, tmp_path)
    assert (
        rows.values("id") == ["1", "2"] and rows.values("x") == ["None", None] and rows.where == str(folder)
    )
    write_jsonl(folder / "raw" / "wanted.jsonl", [{"id": 3}])  # the file that is wanted most
    assert read(SOURCE, tmp_path).values("id") == [3]


def test_no_file_at_all(tmp_path):
    folder = tmp_path / "org" / "name"
    folder.mkdir(parents=True)
    with pytest.raises(
        TaskError, match=r"org/name holds no readable config, split 'test' \(.*\), and no raw/wanted.jsonl"
    ):
        read(SOURCE, tmp_path)


def test_a_truncated_parquet_file_is_named(tmp_path, hub):
    folder = tmp_path / "tau" / "commonsense_qa"
    (folder / "data").mkdir(parents=True)
    whole = next((hub / "tau/commonsense_qa/data").glob("*.parquet")).read_bytes()
    (folder / "data" / "validation-00000-of-00001.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TaskError, match=r"validation-00000-of-00001.parquet: not a whole Parquet file"):
        load_task("commonsenseqa", data_dir=tmp_path)


class FakeHub:
    """Stands for the Hub: `datasets` builds what it is told to, downloads come from a folder."""

    def __init__(self, monkeypatch, builds: dict, folder: Path | None = None) -> None:
        self.builds, self.folder, self.asked, self.patterns = builds, folder, [], []
        monkeypatch.setattr(datasets, "load_dataset_builder", self.build)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.download)

    def build(self, path, config, cache_dir=None):
        self.asked.append((path, config))
        answer = self.builds[path]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def download(self, hub_id, *, repo_type, allow_patterns):
        assert repo_type == "dataset"
        self.patterns += allow_patterns
        if self.folder is None:
            raise OSError("no such file on the Hub")
        return str(self.folder)


class Builder:
    def __init__(self, frame: pd.DataFrame, files: list[str]) -> None:
        self.frame = frame
        self.config = type("Config", (), {"data_files": {"test": files}})()

    def download_and_prepare(self) -> None: ...

    def as_dataset(self, split):
        assert split == "test"
        return datasets.Dataset.from_pandas(self.frame)


def test_the_hub_is_read_by_id(monkeypatch):
    file = "hf://datasets/org/name@" + "0123456789" * 4 + "/data/test.parquet"
    hub = FakeHub(monkeypatch, {"org/name": Builder(pd.DataFrame({"id": [5]}), [file])})
    rows = read(SOURCE)
    assert hub.asked == [("org/name", "config")] and rows.values("id") == [5]
    assert rows.where == "hf://datasets/org/name/data/test.parquet" and rows.origin == "org/name"


def test_a_data_set_that_moved(monkeypatch):
    gone = datasets.exceptions.DatasetNotFoundError("gone")
    hub = FakeHub(monkeypatch, {"org/name": gone, "new/name": Builder(pd.DataFrame({"id": [5]}), [])})
    assert read(SOURCE).origin == "new/name" and [path for path, _ in hub.asked] == ["org/name", "new/name"]


@pytest.mark.parametrize(
    "failure",
    [
        RuntimeError("Dataset scripts are no longer supported"),
        datasets.exceptions.DatasetGenerationError("cast of idks"),
    ],
)
def test_a_builder_that_fails_on_the_hub(monkeypatch, tmp_path, caplog, failure):
    write_csv(tmp_path / "raw" / "a.csv", [{"id": "1"}])
    hub = FakeHub(monkeypatch, {"org/name": failure}, tmp_path)
    rows = read(SOURCE)
    assert rows.values("id") == ["1"] and rows.origin == "org/name"
    assert hub.patterns == ["raw/wanted.jsonl", "raw/*.csv"]
    assert "cannot build org/name" in caplog.text


def test_no_network(monkeypatch):
    FakeHub(
        monkeypatch,
        {
            "org/name": ConnectionError("Couldn't reach the Hub"),
            "new/name": ConnectionError("Couldn't reach the Hub"),
        },
    )
    with pytest.raises(
        TaskError,
        match=r"cannot read org/name from the Hub \(ConnectionError: .*\); for a local copy give",
    ):
        read(SOURCE)


def test_nothing_works_on_the_hub(monkeypatch):
    FakeHub(monkeypatch, {"org/name": ValueError("no config"), "new/name": ValueError("no config")})
    with pytest.raises(
        TaskError, match=r"cannot read org/name from the Hub \(OSError: no such file on the Hub\)"
    ):
        read(SOURCE)


def test_offline_for_real():
    """The tests run with the Hub switched off: what a user without a network sees."""
    with pytest.raises(TaskError, match=r"cannot read akhilayerukola/NormAd from the Hub .* CULNIG_DATA_DIR"):
        load_task("normad")


def test_a_script_that_comes_with_a_data_set_is_not_run(tmp_path):
    folder = tmp_path / "org" / "name"
    folder.mkdir(parents=True)
    (folder / "name.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w').close()\nimport datasets\n")
    with pytest.raises(TaskError):
        read(Source("org/name", None, "test", ("*.jsonl",)), tmp_path)
    assert not (tmp_path / "marker").exists()


def test_the_version_of_datasets_runs_no_scripts():
    assert int(datasets.__version__.partition(".")[0]) >= 4
