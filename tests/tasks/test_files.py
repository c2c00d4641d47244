"""Files in their real formats, written here byte by byte: read exactly, or refused by name with the remedy."""

import gzip
import io
import pickle
import struct
import tarfile

import numpy as np
import pytest

from jaxdyn.tasks import cifar10, classification, idx, npz

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (30, 5, 4), dtype=np.uint8)
LABELS = (np.arange(30) % 3).astype(np.uint8)
TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def idx_bytes(array, code=8):
    header = struct.pack(">HBB", 0, code, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(TYPES[code]).tobytes()


@pytest.fixture
def mnist(tmp_path):
    """A folder with a small data set in the four files of MNIST."""
    for part, rows in (("train", slice(0, 21)), ("t10k", slice(21, 30))):
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(IMAGES[rows]))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(LABELS[rows])))
    return tmp_path


def read(folder, **arguments):
    files = [folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte.gz"]
    return idx(*files, **{"classes": (0, 2), **arguments})


def assert_same(a, b):
    for name in ("x", "y", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_idx_files_hold_the_images_and_labels(mnist):
    assert_same(read(mnist, n=10), classification(IMAGES[:21], LABELS[:21], classes=(0, 2), n=10))
    task = read(mnist, images_test=mnist / "t10k-images-idx3-ubyte", labels_test=mnist / "t10k-labels-idx1-ubyte.gz")
    assert_same(
        task, classification(IMAGES[:21], LABELS[:21], classes=(0, 2), x_test=IMAGES[21:], labels_test=LABELS[21:])
    )
    assert read(mnist, shape=(5, 4, 1)).x.shape == (10, 5, 4, 1)


def test_a_packed_file_stands_for_the_unpacked_one_and_the_other_way_round(mnist):
    task = idx(mnist / "train-images-idx3-ubyte.gz", mnist / "train-labels-idx1-ubyte", classes=(0, 2), n=10)
    assert_same(task, read(mnist, n=10))


@pytest.mark.parametrize("code", TYPES)
def test_every_type_of_number_of_the_format_is_read(tmp_path, code, x64):
    values = (np.arange(40).reshape(10, 4) ** 2 % 97).astype(TYPES[code])
    (tmp_path / "x").write_bytes(idx_bytes(values, code))
    (tmp_path / "y").write_bytes(idx_bytes(np.arange(10) % 2))
    task = idx(tmp_path / "x", tmp_path / "y", classes=(0, 1), n=6)
    np.testing.assert_allclose(task.x, classification(values.astype(float), np.arange(10) % 2, classes=(0, 1), n=6).x)


def test_an_absent_idx_file_is_named_with_where_to_fetch_it_and_where_to_put_it(mnist):
    (mnist / "train-images-idx3-ubyte").unlink()
    with pytest.raises(FileNotFoundError) as error:
        read(mnist)
    for part in (
        f"put it at {mnist}/train-images-idx3-ubyte",
        "`train-images-idx3-ubyte.gz`",
        "https://ossci-datasets",
    ):
        assert part in str(error.value)
    with pytest.raises(FileNotFoundError, match="is a directory"):
        idx(mnist, mnist, classes=(0, 1))


DAMAGE = {
    "truncated image": (lambda data: data[:-1], r"truncated: it has 435 bytes, but its header announces 436"),
    "truncated header": (lambda data: data[:9], "truncated: it ends within its header"),
    "trailing bytes": (lambda data: data + b"!", "corrupt: it has 437 bytes"),
    "empty": (lambda data: b"", "not an IDX file"),
    "page of a web site": (lambda data: b"<html>404</html>", "not an IDX file: it begins with the bytes '3c 68 74 6d'"),
    "unknown type": (lambda data: data[:2] + b"\x07" + data[3:], "not an IDX file"),
    "truncated gzip": (lambda data: gzip.compress(data)[:-9], "truncated or corrupt gzip"),
    "corrupt gzip": (lambda data: gzip.compress(data)[:40] + b"????" + gzip.compress(data)[44:], "corrupt gzip"),
    "no gzip": (lambda data: b"\x1f\x8b" + data, "corrupt gzip"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_idx_file_is_refused_by_name(mnist, damage):
    spoil, message = DAMAGE[damage]
    path = mnist / "train-images-idx3-ubyte"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as error:
        read(mnist)
    assert str(path) in str(error.value)
    assert "fetch it again" in str(error.value)


def test_idx_files_that_do_not_belong_together_are_refused(mnist):
    images, labels = mnist / "train-images-idx3-ubyte", mnist / "train-labels-idx1-ubyte.gz"
    with pytest.raises(ValueError, match=r"train-labels.*are the files swapped"):
        idx(labels, images, classes=(0, 1))
    with pytest.raises(ValueError, match=r"21 images, but .* 9 labels"):
        idx(images, mnist / "t10k-labels-idx1-ubyte.gz", classes=(0, 1))
    with pytest.raises(ValueError, match="both files or neither"):
        idx(images, labels, classes=(0, 1), images_test=images)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_files_hold_examples_with_or_without_a_test_set(tmp_path, save):
    path = tmp_path / "data.npz"
    save(path, x=IMAGES, y=LABELS[:, None])
    assert_same(npz(path, classes=(1, 2), n=12), classification(IMAGES, LABELS, classes=(1, 2), n=12))
    save(
        path, x_train=IMAGES[:20], y_train=LABELS[:20], x_test=IMAGES[20:], y_test=LABELS[20:], classes=["a", "b", "c"]
    )
    expected = classification(IMAGES[:20], LABELS[:20], classes=(2, 0), x_test=IMAGES[20:], labels_test=LABELS[20:])
    assert_same(npz(path, classes=("c", "a")), expected)
    assert_same(npz(str(path), classes=(2, 0)), expected)
    with pytest.raises(ValueError, match=r"\['d'\], but the classes are called \['a', 'b', 'c'\]"):
        npz(path, classes=("a", "d"))


def test_npz_files_that_cannot_be_used_are_refused_by_name(tmp_path):
    path = tmp_path / "data.npz"
    with pytest.raises(FileNotFoundError, match=r"data.npz does not exist.*numpy.savez"):
        npz(path, classes=(0, 1))
    np.savez(path, x=IMAGES)
    with pytest.raises(ValueError, match=r"data.npz holds the arrays \['x'\], but no `y`"):
        npz(path, classes=(0, 1))
    np.savez(path, x_train=IMAGES, y_train=LABELS, x_test=IMAGES)
    with pytest.raises(ValueError, match="one of `x_test` and `y_test`"):
        npz(path, classes=(0, 1))
    np.savez(path, x=IMAGES, y=np.array([{}] * 30))
    with pytest.raises(ValueError, match=r"data.npz .* not an `.npz` file of numbers"):
        npz(path, classes=(0, 1))
    np.savez(path, x=IMAGES, y=LABELS)
    whole = path.read_bytes()
    middle = len(whole) // 2
    spoilt = (
        whole[:-50],
        whole[:middle],
        b"",
        b"text",
        whole[:200] + b"????" + whole[204:],
        whole[:middle] + b"~" * 9 + whole[middle + 9 :],
    )
    for data in spoilt:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"data.npz is truncated, corrupt or not"):
            npz(path, classes=(0, 1))
    with path.open("wb") as file:
        np.save(file, IMAGES)
    with pytest.raises(ValueError, match=r"data.npz is truncated, corrupt or not"):
        npz(path, classes=(0, 1))


# CIFAR-10. Six batches of ten images; `PIXELS` is [60, 32, 32, 3], the files store channel by channel.

PIXELS = RNG.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
CLASS = np.arange(60) * 7 % 10
NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def planes(rows):
    return PIXELS[rows].transpose(0, 3, 1, 2).reshape(len(PIXELS[rows]), 3072)


def binary_batch(rows):
    return np.concatenate([CLASS[rows, None].astype(np.uint8), planes(rows)], axis=1).tobytes()


def python_batch(rows):
    """A batch as Python 2 pickled it: protocol 2, byte strings, an array of `numpy.core.multiarray`."""

    def short(text):
        return b"U" + bytes([len(text)]) + text  # SHORT_BINSTRING

    def integer(number):
        return b"J" + struct.pack("<i", number)  # BININT

    x = planes(rows)
    raw = b"T" + struct.pack("<i", x.size) + x.tobytes()  # BINSTRING
    dtype = b"cnumpy\ndtype\n(" + short(b"u1") + integer(0) + integer(1) + b"tR"
    dtype += b"(" + integer(3) + short(b"|") + b"NNN" + integer(-1) + integer(-1) + integer(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + integer(0) + b"t" + short(b"b") + b"tR"
    array += b"(" + integer(1) + b"(" + integer(x.shape[0]) + integer(x.shape[1]) + b"t" + dtype + b"\x89" + raw + b"tb"
    labels = b"](" + b"".join(integer(int(label)) for label in CLASS[rows]) + b"e"
    entries = short(b"batch_label") + short(b"of ten") + short(b"labels") + labels + short(b"data") + array
    return b"\x80\x02}(" + entries + b"u."


def batches(write, end=""):
    return {name + end: write(slice(10 * i, 10 * i + 10)) for i, name in enumerate(NAMES)}


def put(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def archive(path, files, top):
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


PYTHON, BINARY = batches(python_batch), batches(binary_batch, ".bin")
FORMS = {
    "python directory": lambda folder: put(folder / "cifar-10-batches-py", PYTHON),
    "directory above": lambda folder: put(folder / "data" / "cifar-10-batches-py", PYTHON).parent,
    "binary directory": lambda folder: put(folder / "cifar-10-batches-bin", BINARY),
    "python archive": lambda folder: archive(folder / "cifar-10-python.tar.gz", PYTHON, "cifar-10-batches-py"),
    "binary archive": lambda folder: archive(folder / "cifar-10-binary.tar.gz", BINARY, "cifar-10-batches-bin"),
}


@pytest.mark.parametrize("form", FORMS)
def test_cifar_is_read_in_every_published_form(tmp_path, form):
    task = cifar10(FORMS[form](tmp_path), classes=("airplane", 2), shape=(32, 32, 3))
    expected = classification(
        PIXELS[:50], CLASS[:50], classes=(0, 2), x_test=PIXELS[50:], labels_test=CLASS[50:], shape=(32, 32, 3)
    )
    assert_same(task, expected)
    assert task.x.shape == (10, 32, 32, 3)


def test_cifar_is_read_from_an_npz_subset(tmp_path):
    path = tmp_path / "subset.npz"
    arrays = {"x_train": PIXELS[:50], "y_train": CLASS[:50], "x_test": PIXELS[50:], "y_test": CLASS[50:]}
    np.savez(path, **arrays, classes=["airplane"])
    task = cifar10(path, classes=("bird", "truck"), n=8, n_test=2)
    assert_same(
        task,
        classification(
            PIXELS[:50], CLASS[:50], classes=(2, 9), n=8, n_test=2, x_test=PIXELS[50:], labels_test=CLASS[50:]
        ),
    )
    with pytest.raises(ValueError, match=r"\['plane'\], but the classes are called \['airplane', 'automobile'"):
        cifar10(path, classes=("plane", "bird"))
    np.savez(path, **{**arrays, "x_train": PIXELS[:50, :28]})
    with pytest.raises(ValueError, match=r"subset.npz is not CIFAR-10: `x_train` has shape \(50, 28, 32, 3\)"):
        cifar10(path, classes=(0, 1))
    np.savez(path, x=PIXELS)
    with pytest.raises(ValueError, match=r"subset.npz holds the arrays \['x'\], but no `x_train`"):
        cifar10(path, classes=(0, 1))


def test_absent_cifar_data_are_named_with_what_to_fetch(tmp_path):
    for path, message in (
        (tmp_path / "nowhere", "nowhere does not exist"),
        (tmp_path, "holds no CIFAR-10 batches"),
        (tmp_path / "subset.npz", "subset.npz does not exist"),
        (
            put(tmp_path / "part", {name: PYTHON[name] for name in NAMES[:3]}),
            "part lacks data_batch_4, data_batch_5, test_batch",
        ),
    ):
        with pytest.raises(FileNotFoundError, match=message) as error:
            cifar10(path, classes=(0, 1))
        assert "Fetch https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz (md5 c58f3010" in str(error.value)


def malicious():
    class Command:
        def __reduce__(self):
            return exec, ("raise SystemExit('it ran')",)

    return pickle.dumps(Command(), protocol=2)


CIFAR_DAMAGE = {
    "truncated record": ("data_batch_2.bin", lambda data: data[:-5], "truncated or corrupt: it has 30725 bytes"),
    "missing records": ("data_batch_2.bin", lambda data: data[:3073], "one is truncated"),
    "empty": ("data_batch_2.bin", lambda data: b"", "truncated or corrupt"),
    "wrong label": ("data_batch_2.bin", lambda data: b"\x0a" + data[1:], "label outside"),
    "truncated pickle": ("data_batch_2", lambda data: data[:-100], "truncated, corrupt or no batch"),
    "text": ("data_batch_2", lambda data: b"<html>404</html>", "truncated, corrupt or no batch"),
    "other pickle": ("data_batch_2", lambda data: pickle.dumps([1, 2]), "no batch of CIFAR-10"),
    "programme": ("data_batch_2", lambda data: malicious(), r"it asks for `(builtins|__builtin__).exec`"),
}


@pytest.mark.parametrize("damage", CIFAR_DAMAGE)
def test_a_damaged_batch_is_refused_by_name(tmp_path, damage):
    name, spoil, message = CIFAR_DAMAGE[damage]
    files = dict(BINARY if name.endswith(".bin") else PYTHON)
    files[name] = spoil(files[name])
    with pytest.raises(ValueError, match=message) as error:
        cifar10(put(tmp_path, files), classes=(0, 1))
    assert name in str(error.value)


def test_a_damaged_archive_is_refused_by_name(tmp_path):
    path = archive(tmp_path / "cifar.tar.gz", PYTHON, "py")
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], whole[:-4], b"<html>404</html>", whole[:3000] + b"~~~~" + whole[3004:]):
        path.write_bytes(data)
        with pytest.raises(
            ValueError,
            match=r"cifar.tar.gz is (a truncated or corrupt gzip file|truncated, corrupt or no `.tar` archive)",
        ):
            cifar10(path, classes=(0, 1))
    archive(path, {"readme": b"hello"}, "py")
    with pytest.raises(ValueError, match=r"cifar.tar.gz is not the archive of CIFAR-10: it lacks data_batch_1"):
        cifar10(path, classes=(0, 1))
