"""The device of each process that torchrun starts."""

import threading

import pytest
import torch.distributed as dist

from pipeline.config import UserError
from pipeline.torchrun import choose_device
from pipeline.train.ranks import Ranks
from stores.devices import use, with_index
from tests.fake_cuda import faked


@pytest.mark.parametrize(("local_rank", "expected"), [(None, "cuda:0"), ("0", "cuda:0"), ("3", "cuda:3")])
@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_process_has_the_device_of_its_number(monkeypatch: pytest.MonkeyPatch, local_rank, expected, name) -> None:
    fake = faked(monkeypatch, 4)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert choose_device(name) == expected
    assert fake.now() == int(expected[-1])
    assert choose_device("cpu") == "cpu"


@pytest.mark.parametrize(("local_rank", "message"), [("4", "sees 4 CUDA devices"), ("x", "LOCAL_RANK = 'x'")])
def test_more_processes_than_devices_are_refused(monkeypatch: pytest.MonkeyPatch, local_rank, message) -> None:
    faked(monkeypatch, 4)
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    with pytest.raises(UserError, match=message):
        choose_device("auto")


def test_a_device_without_a_number_is_the_current_one_in_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = faked(monkeypatch, 4)
    use("cuda:2")
    device, found = with_index("cuda"), []
    assert str(device) == "cuda:2"
    assert [str(with_index(name)) for name in ("cpu", "cuda:1", "meta")] == ["cpu", "cuda:1", "meta"]

    def elsewhere() -> None:
        found.append(fake.now())
        use(device)
        found.append(fake.now())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [0, 2]


@pytest.mark.parametrize(("device", "backend"), [("cuda:1", "cpu:gloo,cuda:nccl"), ("cpu", "gloo")])
def test_devices_meet_over_nccl_and_what_is_on_the_cpu_over_gloo(
    monkeypatch: pytest.MonkeyPatch, device: str, backend: str
) -> None:
    asked = []
    monkeypatch.setattr(dist, "init_process_group", lambda backend: asked.append(backend))
    monkeypatch.setattr(dist, "new_group", lambda **options: options)
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "::1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    Ranks.join("data", device)
    assert asked == [backend]
