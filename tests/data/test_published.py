from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets

from regbench.data import torchvision_sets as sets
from regbench.data.base import Images
from regbench.data.checksums import fingerprint_of
from regbench.data.published import Published
from regbench.errors import DataError
from tests.data.small import LAY_OUT, SIZES, Small, md5

ALL: list[type[Published]] = [
    sets.MNIST,
    sets.FashionMNIST,
    sets.KMNIST,
    sets.CIFAR10,
    sets.CIFAR100,
    sets.SVHN,
]


@pytest.fixture(params=LAY_OUT)
def small(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    return LAY_OUT[request.param](tmp_path / "data", monkeypatch)


@pytest.fixture
def mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    return LAY_OUT["mnist"](tmp_path / "data", monkeypatch)


@pytest.fixture
def kmnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    return LAY_OUT["kmnist"](tmp_path / "data", monkeypatch)


def same(found: Images, expected: Images) -> None:
    for name in ("train", "train_labels", "test", "test_labels"):
        left, right = getattr(found, name), getattr(expected, name)
        assert left.dtype == right.dtype, name
        np.testing.assert_array_equal(left, right, err_msg=name)
    assert found.classes == expected.classes


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


# --- what is known beforehand


@pytest.mark.parametrize("cls", [sets.CIFAR10, sets.CIFAR100])
def test_cifar_checksums_are_those_of_torchvision(cls: type[Published]) -> None:
    source: Any = getattr(torchvision.datasets, cls.__name__)
    expected = [*map(tuple, source.train_list), *map(tuple, source.test_list)]
    expected.append((source.meta["filename"], source.meta["md5"]))
    assert [(Path(file.path).name, file.md5) for file in cls.published] == expected
    assert {Path(file.path).parent.name for file in cls.published} == {source.base_folder}


def test_svhn_checksums_are_those_of_torchvision() -> None:
    splits = torchvision.datasets.SVHN.split_list
    expected = [tuple(splits[split][1:]) for split in ("train", "test")]
    assert [(file.path, file.md5) for file in sets.SVHN.published] == expected


def test_kmnist_checksums_are_those_of_torchvisions_archives() -> None:
    expected = [md5 for _, md5 in torchvision.datasets.KMNIST.resources]
    assert [file.md5 for file in sets.KMNIST.published] == expected
    assert all(file.packed for file in sets.KMNIST.published)


def test_mnist_sizes_follow_from_the_format() -> None:
    assert [file.size for file in sets.MNIST.published] == [47_040_016, 60_008, 7_840_016, 10_008]


@pytest.mark.parametrize("cls", ALL)
def test_every_file_is_provided_by_exactly_one_download(cls: type[Published]) -> None:
    provided = [file for download in cls().downloads() for file in download.provides]
    assert sorted(file.path for file in provided) == sorted(file.path for file in cls.published)
    assert all(url.startswith("http") for download in cls().downloads() for url in download.urls)


@pytest.mark.parametrize("cls", ALL)
def test_size_and_fingerprint_need_no_data(cls: type[Published], tmp_path: Path) -> None:
    dataset = cls()
    assert dataset.sizes(tmp_path).train >= 50_000
    assert re.fullmatch("sha256:[0-9a-f]{64}", dataset.fingerprint(tmp_path))
    assert not any(tmp_path.iterdir())


def test_fingerprints_differ_between_sets_and_between_versions_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prints = [cls().fingerprint(tmp_path) for cls in ALL]
    assert len(set(prints)) == len(ALL)
    other = (sets.SVHN.published[0], sets.MNIST.published[0])
    monkeypatch.setattr(sets.SVHN, "published", other)
    assert sets.SVHN().fingerprint(tmp_path) not in prints


# --- loading


def test_loads_what_the_files_hold(small: Small) -> None:
    assert small.dataset.check(small.root) == []
    same(small.dataset.load(small.root), small.images)
    assert small.dataset.sizes(small.root) == SIZES


def test_old_processed_files_are_not_taken_for_the_raw_ones(mnist: Small) -> None:
    # torchvision's own class prefers these two, whatever they hold.
    processed = mnist.root / "MNIST" / "processed"
    processed.mkdir()
    for name in ("training.pt", "test.pt"):
        (processed / name).write_bytes(b"something else")
    same(mnist.dataset.load(mnist.root), mnist.images)


def test_torchvision_alone_would_load_a_flipped_byte_silently(mnist: Small) -> None:
    flip(mnist.paths[0])
    loaded = torchvision.datasets.MNIST(str(mnist.root), train=True)
    assert (loaded.data.numpy()[:, None] != mnist.images.train).sum() == 1
    with pytest.raises(DataError):
        mnist.dataset.load(mnist.root)


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
def test_each_damaged_file_is_named_with_the_command_that_mends(
    small: Small, damage: Callable[[Path], None]
) -> None:
    for file, path in zip(small.dataset.published, small.paths, strict=True):
        intact = path.read_bytes()
        damage(path)
        damaged = path.read_bytes() if path.exists() else None
        if damaged is None:
            expected = f"{path} is missing"
        elif file.size is not None and len(damaged) != file.size:
            expected = f"{path} is truncated: expected {len(intact):,} bytes, found {len(damaged):,}"
        else:
            expected = f"{path} is altered: expected MD5 {md5(intact)}, found {md5(damaged)}"
        (problem,) = small.dataset.check(small.root)
        assert problem.startswith(expected)
        with pytest.raises(DataError) as caught:
            small.dataset.load(small.root)
        assert str(path) in str(caught.value)
        assert caught.value.hint == f"regbench data fetch {small.dataset.name} --data-dir {small.root}"
        assert caught.value.exit_code == 4
        path.write_bytes(intact)
    assert small.dataset.check(small.root) == []


def test_a_truncated_idx_file_is_called_so(mnist: Small) -> None:
    path = mnist.paths[2]
    truncate(path)
    size = 16 + SIZES.test * 784
    assert mnist.dataset.check(mnist.root) == [
        f"{path} is truncated: expected {size:,} bytes, found {size - 3:,}"
    ]
    path.write_bytes(b"x" * (size + 1))
    assert "too long" in mnist.dataset.check(mnist.root)[0]


def test_all_damaged_files_are_listed_at_once(small: Small) -> None:
    for path in small.paths:
        flip(path)
    problems = small.dataset.check(small.root)
    assert len(problems) == len(small.paths)
    with pytest.raises(DataError) as caught:
        small.dataset.load(small.root)
    assert all(str(path) in str(caught.value) for path in small.paths)


def test_a_set_that_is_not_there_is_one_problem(small: Small) -> None:
    elsewhere = small.root.parent / "else where"
    (problem,) = small.dataset.check(elsewhere)
    assert small.dataset.name in problem
    assert str(elsewhere) in problem
    with pytest.raises(DataError) as caught:
        small.dataset.load(elsewhere)
    assert caught.value.hint == f"regbench data fetch {small.dataset.name} --data-dir '{elsewhere}'"


def test_a_file_that_cannot_be_read_is_a_problem_not_a_crash(
    mnist: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("regbench.data.published.md5_of", refuse)
    problems = mnist.dataset.check(mnist.root)
    assert len(problems) == 4
    assert all("cannot be read" in problem and "Permission denied" in problem for problem in problems)


# --- Kuzushiji-MNIST: only the archives have published checksums


def test_kmnist_cannot_be_verified_without_its_archives(kmnist: Small) -> None:
    archive = kmnist.root / "KMNIST/raw/t10k-labels-idx1-ubyte.gz"
    archive.unlink()
    (problem,) = kmnist.dataset.check(kmnist.root)
    assert "cannot be verified" in problem
    assert archive.name in problem


def test_kmnist_with_an_altered_archive_is_refused(kmnist: Small) -> None:
    archive = kmnist.root / "KMNIST/raw/train-images-idx3-ubyte.gz"
    expected = md5(archive.read_bytes())
    flip(archive)
    (problem,) = kmnist.dataset.check(kmnist.root)
    assert f"{archive} is altered: expected MD5 {expected}, found {md5(archive.read_bytes())}" == problem


# --- fetching, by torchvision's own download code, from a server of ours


class Server:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        log = self.asked

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                log.append(self.path.rsplit("/", 1)[-1])
                super().do_GET()

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    folder = tmp_path / "served"
    folder.mkdir()
    running = Server(folder)
    yield running
    running.http.shutdown()
    running.http.server_close()


@pytest.fixture
def served(small: Small, server: Server, monkeypatch: pytest.MonkeyPatch) -> Small:
    """A small set whose archives come from ``server``."""
    for name, content in small.archives.items():
        (server.folder / name).write_bytes(content)
    point_to(server.url, small, monkeypatch)
    return small


def point_to(url: str, small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    source: Any = getattr(torchvision.datasets, getattr(small.dataset, "torchvision_name", "SVHN"))
    if hasattr(source, "mirrors"):
        # The first mirror does not work, so the second must be tried.
        monkeypatch.setattr(source, "mirrors", [f"{url}nowhere/", url])
    elif hasattr(source, "split_list"):
        moved = {split: [f"{url}{name}", name, md5] for split, (_, name, md5) in source.split_list.items()}
        monkeypatch.setattr(source, "split_list", moved)
    else:
        monkeypatch.setattr(source, "url", f"{url}{source.filename}")


def test_fetch_downloads_everything_into_an_empty_place(served: Small, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    served.dataset.fetch(fresh)
    assert served.dataset.check(fresh) == []
    same(served.dataset.load(fresh), served.images)


def test_fetch_asks_for_nothing_where_all_is_well(served: Small, server: Server) -> None:
    served.dataset.fetch(served.root)
    assert server.asked == []


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
def test_fetch_mends_any_file(served: Small, damage: Callable[[Path], None]) -> None:
    for path in served.paths:
        damage(path)
        served.dataset.fetch(served.root)
        same(served.dataset.load(served.root), served.images)


def test_fetch_downloads_only_what_is_damaged(
    mnist: Small, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in mnist.archives.items():
        (server.folder / name).write_bytes(content)
    point_to(server.url, mnist, monkeypatch)
    flip(mnist.paths[3])
    mnist.dataset.fetch(mnist.root)
    assert set(server.asked) == {"t10k-labels-idx1-ubyte.gz"}


def test_fetch_takes_an_archive_that_was_placed_by_hand(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to("http://127.0.0.1:9/", small, monkeypatch)
    monkeypatch.setenv("no_proxy", "*")
    shutil.rmtree(small.root)
    for download in small.dataset.downloads():
        folder = small.root / download.folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / download.filename).write_bytes(small.archives[download.filename])
    small.dataset.fetch(small.root)
    same(small.dataset.load(small.root), small.images)


def test_fetch_without_a_network_says_what_was_tried_and_what_to_do(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to("http://127.0.0.1:9/", small, monkeypatch)
    monkeypatch.setenv("no_proxy", "*")
    fresh = tmp_path / "fresh"
    with pytest.raises(DataError) as caught:
        small.dataset.fetch(fresh)
    assert caught.value.hint is not None
    for download in small.dataset.downloads():
        assert all(url in str(caught.value) for url in download.urls)
        assert f"{fresh / download.folder / download.filename}  (MD5 {download.md5})" in caught.value.hint
    assert f"regbench data fetch {small.dataset.name} --data-dir {fresh}" in caught.value.hint


def test_fetch_refuses_what_a_server_altered(served: Small, server: Server, tmp_path: Path) -> None:
    for file in server.folder.iterdir():
        flip(file)
    with pytest.raises(DataError, match=r"corrupted"):
        served.dataset.fetch(tmp_path / "fresh")


# --- the real thing


@pytest.fixture(scope="session")
def real_root() -> Path:
    place = os.environ.get("REGBENCH_DATA")
    if not place:
        pytest.skip("REGBENCH_DATA is not set, so there are no real files")
    return Path(place)


@pytest.mark.parametrize("cls", ALL)
def test_real_files(cls: type[Published], real_root: Path) -> None:
    dataset = cls()
    if not any(path.exists() for path in dataset.files(real_root)):
        pytest.skip(f"no {dataset.name} below {real_root}")
    images = dataset.load(real_root)
    sizes, shape = dataset.sizes(real_root), dataset.shape
    for pixels, labels, count in (
        (images.train, images.train_labels, sizes.train),
        (images.test, images.test_labels, sizes.test),
    ):
        assert pixels.shape == (count, shape.channels, shape.side, shape.side)
        assert pixels.dtype == np.uint8
        assert (pixels.min(), pixels.max()) == (0, 255)
        assert set(np.unique(labels)) == set(range(len(images.classes)))


def test_real_mnist_has_the_known_mean_image_error(real_root: Path) -> None:
    if not (real_root / "MNIST").exists():
        pytest.skip(f"no mnist below {real_root}")
    images = sets.MNIST().load(real_root)
    mean = images.train.mean(axis=0, dtype=np.float64) / 255
    error = ((images.test / 255.0 - mean) ** 2).mean()
    assert error == pytest.approx(0.0675, abs=5e-5)
    assert images.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert fingerprint_of(images).startswith("sha256:")
