"""The folder of an export is whole or not there, and replaces nothing but its like."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import onnx
import pytest

from onnx_arch.errors import ExportError, InvalidArgumentError, InvalidModelError
from onnx_arch.exporters import bundle, export
from onnx_arch.exporters.bundle import FORMAT, content_sha256, read_manifest, staged_folder, write_manifest
from onnx_arch.exporters.export import export_architecture


def small_bundle(folder, **content):
    folder.mkdir(parents=True)
    write_manifest(folder, {"format": FORMAT, "format_version": 1, **content})
    return folder


def test_kept_folder_is_there_with_usual_permissions_and_nothing_beside_it(tmp_path):
    with staged_folder(tmp_path / "new" / "net") as staged:
        (staged.folder / "model.onnx").write_bytes(b"x")
        assert staged.folder.parent == tmp_path / "new"
        staged.keep()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["net"]
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "new" / "net").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt()])
def test_failure_leaves_nothing_not_even_the_folder_above(tmp_path, error):
    def work():
        with staged_folder(tmp_path / "a" / "b" / "net") as staged:
            (staged.folder / "model.onnx").write_bytes(b"x")
            raise error

    with pytest.raises(type(error)):
        work()
    assert list(tmp_path.iterdir()) == []


def test_failure_leaves_the_old_bundle_as_it_was(tmp_path):
    target = small_bundle(tmp_path / "net", name="old")

    def work():
        with staged_folder(target) as staged:
            (staged.folder / "model.onnx").write_bytes(b"x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
    assert read_manifest(target)["name"] == "old"


def test_bundle_is_replaced_by_a_bundle(tmp_path):
    target = small_bundle(tmp_path / "net", name="old")
    (target / "model.onnx.data").write_bytes(b"stale")
    with staged_folder(target) as staged:
        write_manifest(staged.folder, {"format": FORMAT, "format_version": 1, "name": "new"})
        staged.keep()
    assert read_manifest(target)["name"] == "new"
    assert [path.name for path in target.iterdir()] == ["manifest.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_empty_folder_is_taken(tmp_path):
    (tmp_path / "net").mkdir()
    with staged_folder(tmp_path / "net") as staged:
        staged.keep()


def place_file(target):
    target.write_text("notes")


def place_folder(target):
    target.mkdir()
    (target / "thesis.tex").write_text("years of work")


def place_link(target):
    (target.parent / "other").mkdir()
    target.symlink_to(target.parent / "other")


def place_foreign_manifest(target):
    target.mkdir()
    (target / "manifest.json").write_text('{"name": "a browser extension"}')


def place_broken_manifest(target):
    target.mkdir()
    (target / "manifest.json").write_text('{"format": ')


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (place_file, "exists and is no folder"),
        (place_folder, "is not replaced: .* has no manifest.json"),
        (place_link, "exists and is no folder"),
        (place_foreign_manifest, "is not replaced: .* is not the manifest of a bundle"),
        (place_broken_manifest, "is not replaced: .* cannot be read"),
    ],
)
def test_anything_else_is_not_replaced_and_that_is_said_before_any_work(tmp_path, monkeypatch, place, message):
    place(tmp_path / "mlp")
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    monkeypatch.setattr(export, "architecture_subject", pytest.fail)
    with pytest.raises(InvalidArgumentError, match=message):
        export_architecture("mlp", tmp_path, preset="tiny")
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


def test_output_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidArgumentError, match="cannot be written to"):
        export_architecture("mlp", tmp_path / "file", preset="tiny")


def test_too_little_space_is_said_before_writing(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 90, 10))
    monkeypatch.setattr(export, "write_model", pytest.fail)
    with pytest.raises(ExportError, match=r"mlp needs 1076 bytes, 10 are free; nothing was written"):
        export_architecture("mlp", tmp_path / "out", preset="tiny")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_space_that_runs_out_while_writing_is_said(tmp_path, monkeypatch, code):
    def full(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(export, "write_test_data", full)
    with pytest.raises(ExportError, match=r"no space left for .*mlp: .* nothing was written"):
        export_architecture("mlp", tmp_path / "out", preset="tiny")
    assert list(tmp_path.iterdir()) == []


def test_disk_limit_of_the_system_is_one_line(tmp_path):
    """A file size limit, which the kernel enforces, in the middle of writing the weights."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "from onnx_arch.cli.main import main\n"
        "sys.argv = ['onnx-arch', 'export', 'mlp', '-o', 'out']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("onnx-arch: error: no space left for out/mlp")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_interrupt_while_proving_leaves_nothing(tmp_path):
    code = (
        "import sys\nfrom onnx_arch.exporters import export\n"
        "def wait(*_):\n    print('proving', flush=True)\n    import time; time.sleep(60)\n"
        "export.prove = wait\n"
        "from onnx_arch.cli.main import main\n"
        "sys.argv = ['onnx-arch', 'export', 'mlp', '--preset', 'tiny', '-o', 'out']; main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "proving\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 2
    assert said.startswith("onnx-arch: interrupted")
    assert list(tmp_path.iterdir()) == []


def test_digest_covers_all_but_the_record():
    content = {"format": FORMAT, "opset": 20}
    digest = content_sha256(content)
    assert content_sha256({**content, "record": {"durations_s": {"prove": 1.5}}, "content_sha256": "x"}) == digest
    assert content_sha256({**content, "opset": 21}) != digest


def test_manifest_of_another_format_version_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"format": FORMAT, "format_version": 99}))
    with pytest.raises(InvalidModelError, match="has format version 99; 1 is read"):
        read_manifest(tmp_path)


def test_failed_swap_puts_the_old_bundle_back(tmp_path, monkeypatch):
    target = small_bundle(tmp_path / "net", name="old")
    rename = bundle.Path.rename

    def fails_into_place(self, to):
        if self.name.endswith(".partial"):
            raise OSError(errno.EIO, "input/output error")
        return rename(self, to)

    monkeypatch.setattr(bundle.Path, "rename", fails_into_place)

    def work():
        with staged_folder(target) as staged:
            staged.keep()

    with pytest.raises(OSError, match="input/output error"):
        work()
    assert read_manifest(target)["name"] == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_files_of_the_user_survive_a_second_export_into_the_bundle(tmp_path: Path) -> None:
    first = export_architecture("mlp", tmp_path, preset="tiny")
    (first.path / "notes").mkdir()
    (first.path / "notes" / "mine.txt").write_text("kept")
    (first.path / "report.html").write_text("kept too")
    second = export_architecture("mlp", tmp_path, preset="tiny", opset=18)
    assert (second.path / "notes" / "mine.txt").read_text() == "kept"
    assert (second.path / "report.html").read_text() == "kept too"
    assert onnx.load(second.path / "model.onnx").opset_import[0].version == 18


def test_manifest_is_the_same_bytes_for_the_same_input(tmp_path: Path) -> None:
    manifests = [export_architecture("mlp", tmp_path / name, preset="tiny").path / "manifest.json" for name in "ab"]
    assert manifests[0].read_bytes() == manifests[1].read_bytes()
