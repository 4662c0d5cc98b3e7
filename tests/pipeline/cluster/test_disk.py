from pathlib import Path

import pytest

from pipeline.cluster import disk

MOUNTS = """rootfs / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
tmpfs /tmp tmpfs rw 0 0
scratch /mnt/my\\040disk lustre rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/data/runs", "ext4"), ("/home/me/runs/demo", "nfs4"), ("/homely", "ext4"), ("/tmp/x", "tmpfs"),
     ("/mnt/my disk/runs", "lustre")],
)  # fmt: skip
def test_a_folder_is_on_the_deepest_mount(tmp_path: Path, folder: str, kind: str) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    assert disk.file_system(Path(folder), mounts) == kind
    assert disk.file_system(Path(folder), tmp_path / "none") is None


def test_a_folder_of_this_machine_is_told_where_there_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "file_system", lambda _: "ext4")
    monkeypatch.setattr(disk, "other_nodes", lambda: [])
    assert disk.warning(Path("runs")) is None
    monkeypatch.setattr(disk, "other_nodes", lambda: ["node7", "node8"])
    assert "where node7 does not see it" in (disk.warning(Path("runs")) or "")
    monkeypatch.setattr(disk, "file_system", lambda _: "nfs4")
    assert disk.warning(Path("runs")) is None
