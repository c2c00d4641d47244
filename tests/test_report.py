"""The report: one page that parses, escapes, holds every verdict, asks nobody for anything, and renders in a browser."""

import base64
import dataclasses
import json
import shutil
import subprocess
from html.parser import HTMLParser

import matplotlib.figure
import numpy as np
import pytest
import xarray as xr

from jaxdyn import catalogue, cli, experiments, markup, report
from jaxdyn.analysis.claims import AtLeast, AtMost, Claim, judge

NASTY = "<script>alert('x')</script> & \"quotes\" ‖K‖"
CLAIMS = (
    Claim("W1", NASTY, "<b>us</b>", AtMost(-0.4)),
    Claim("W2", "Much.", "us", AtLeast(1.0)),
    Claim("W3", "Unknown.", "us", AtLeast(0.5)),
    Claim("W4", "Never.", "us", AtLeast(0.5)),
    Claim("W5", "In several cases.", "us", AtLeast(0.25)),
)
ESTIMATES = {
    "W1/2": (-0.51, -0.55, -0.47),
    "W2/2": (0.125, 0.0625, 0.25),
    "W3/2": (float("nan"), 0.0, 1.0),
    "W5/deep": (0.5, 0.4375, 0.5625),
    "W5/flat": (0.125, 0.1, 0.15),
}
VERDICTS = judge(ESTIMATES, CLAIMS)
VOID = {"meta", "img", "wbr"}


class Page(HTMLParser):
    """Tags that nest, ids, links and the text of every cell."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.links, self.sources, self.text = [], [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if "href" in found else []
        self.sources += [found["src"]] if "src" in found else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def _store(path, *, is_done=True, **attrs):
    done = np.array([True, is_done])
    told = {"experiment": "width", "config": json.dumps({"widths": [4, 8], "note": NASTY}), "git_commit": "abc123"}
    versions = {"versions": {"jaxdyn": "0.1.0"}, "device_kind": "<cpu>", "device_count": 2, "precision": ["highest"]}
    dataset = xr.Dataset({"done": ("seed", done), "loss": ("seed", [1.0, 2.0])}, attrs=told | versions | attrs)
    dataset.to_zarr(path, zarr_format=3, consolidated=False)
    return path


@pytest.fixture
def judged(monkeypatch):
    """The width experiment with claims, estimates and a figure that are given."""

    def draw(*_):
        """Two lines & <more>.

        Details.
        """
        page = matplotlib.figure.Figure()
        page.subplots().plot([1, 2], [3, 4])
        return page

    stated, loaded = experiments.claims, experiments.load("width")
    monkeypatch.setattr(experiments, "claims", lambda name: CLAIMS if name == "width" else stated(name))
    given = dataclasses.replace(loaded, claims=CLAIMS, intervals=lambda *_: ESTIMATES, draw=draw)
    monkeypatch.setattr(experiments, "load", lambda _: given)
    monkeypatch.setattr(experiments.Experiment, "config", lambda *_: None)
    return given


@pytest.fixture
def page(judged, tmp_path):
    runs = [report.read(_store(tmp_path / "a.zarr"))]
    return report.page(runs)


def test_the_page_parses_and_its_links_lead_somewhere(page):
    found = Page(page)
    assert len(found.ids) == len(set(found.ids))
    assert set(found.ids) == set(experiments.names())
    assert {link for link in found.links if link.startswith("#")} == {f"#{name}" for name in experiments.names()}


def test_everything_is_escaped(page):
    assert "script" not in Page(page).tags
    assert "alert('x')" not in page
    assert NASTY in "".join(Page(page).text)
    assert "<cpu>" not in page


def test_every_verdict_is_there_with_estimate_interval_criterion_and_source(page):
    cells = [text.strip() for text in Page(page).text]
    for one in VERDICTS:
        for said in (one.statement, one.criterion, one.source, str(one.verdict)):
            assert said in cells, said
    for number in (
        "-0.51",
        "[-0.55, -0.47]",
        "0.125",
        "[0.0625, 0.25]",
        "the estimate or its interval is not a number",
    ):
        assert number in cells
    assert "not run" in cells  # W4, which the run says nothing about


def test_the_cases_of_a_claim_fold_under_it(page):
    found = Page(page)
    assert sum(text.strip() == "In several cases." for text in found.text) == 1
    assert "2 cases" in found.text
    assert {"deep", "flat"} <= set(found.text)


def test_the_page_is_self_contained_and_says_so_to_the_browser(page):
    found = Page(page)
    assert all(source.startswith("data:image/") for source in found.sources)
    assert all(link.startswith("#") for link in found.links)
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page
    (source,) = found.sources
    assert b"<svg" in base64.b64decode(source.partition(",")[2])


def test_provenance_and_all_chapters_are_there(page):
    text = "\n".join(Page(page).text)
    for said in ("abc123", "jaxdyn 0.1.0", "widths = 4, 8", "2 × <cpu>", "a.zarr", "2 of 2", "Method"):
        assert said in text, said
    for chapter, _ in catalogue.arrange(experiments.names()):
        assert chapter.title in text
    assert "No store of this experiment is in this report. It has not been run." in text


def test_a_half_finished_store_says_so_and_has_no_verdicts(judged, tmp_path):
    run = report.read(_store(tmp_path / "a.zarr", is_done=False))
    assert (run.verdicts, run.figure) == ((), "")
    page = report.page([run, report.read(_store(tmp_path / "b.zarr"))])
    assert "Half-finished: 1 of 2 members" in page
    assert "b.zarr: ?, " in page


def test_preset_and_date_are_read_beside_the_store(judged, tmp_path):
    store = _store(tmp_path / "a.zarr")
    written = {
        "date": "2026-01-02T03:04:05+00:00",
        "preset": "ci",
        "verdicts": [],
        "attributes": {"experiment": "width"},
    }
    (tmp_path / "a.json").write_text(json.dumps(written))
    run = report.read(store)
    assert (run.preset, run.date) == ("ci", "2026-01-02")


def test_large_figures_are_embedded_as_png(monkeypatch):
    monkeypatch.setattr(report, "LARGEST_SVG", 10)
    assert report.embed(matplotlib.figure.Figure()).startswith("data:image/png;base64,")


def test_stores_that_cannot_be_reported_are_refused_with_the_remedy(judged, tmp_path, capsys, monkeypatch):
    foreign = tmp_path / "foreign.zarr"
    xr.Dataset({"a": ("x", [1.0])}).to_zarr(foreign, zarr_format=3, consolidated=False)
    mine = _store(tmp_path / "mine.zarr", experiment="mine")
    for store, words in (
        (tmp_path / "none.zarr", "no jaxdyn store"),
        (foreign, "not written by jaxdyn"),
        (mine, "jaxdyn show"),
    ):
        assert cli.main(["report", str(store), "-o", str(tmp_path / "r.html")]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert str(store) in error
    assert not (tmp_path / "r.html").exists()
    broken = dataclasses.replace(judged, intervals=lambda _, data: data["missing"])
    monkeypatch.setattr(experiments, "load", lambda _: broken)
    with pytest.raises(ValueError, match="run the experiment again"):
        report.read(_store(tmp_path / "old.zarr"))


def test_the_command_writes_the_page(judged, tmp_path, capsys):
    store = _store(tmp_path / "a.zarr")
    assert cli.main(["report", str(store), "-o", str(tmp_path / "new" / "r.html")]) == 0
    assert "r.html: 1 store, 0." in capsys.readouterr().out
    Page((tmp_path / "new" / "r.html").read_text(encoding="utf-8"))


def test_docstrings_become_paragraphs_lists_tables_and_formulas():
    text = "One `a < b`\nand more.\n\n    L = 1\n\n* x\n* y\n  z\n\n| a | b |\n|---|---|\n| 1 | |f| |\n\nReferences:\n    Us."
    assert markup.prose(text).text == (
        "<p>One <code>a &lt; b</code> and more.</p><pre>L = 1</pre><ul><li>x</li><li>y z</li></ul>"
        '<table class="plain"><thead><tr><th scope="col">a</th><th scope="col">b</th></tr></thead>'
        '<tbody><tr><td data-label="a">1</td><td data-label="b">|f|</td></tr></tbody></table><p><b>References. </b>Us.</p>'
    )


@pytest.mark.skipif(
    shutil.which("chromium") is None,
    reason="no `chromium` on PATH; `apt-get install chromium` (Debian) brings it, and these tests look at the page in it",
)
@pytest.mark.parametrize("size", ["1400,1000", "400,1000"])
def test_a_browser_renders_the_page_without_complaint_at_any_width(page, tmp_path, size):
    def browse(text, *flags):
        file = tmp_path / "page.html"
        file.write_text(text, encoding="utf-8")
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
        where = [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={size}", *flags, file.as_uri()]
        done = subprocess.run([*command, *where], capture_output=True, text=True, timeout=60, check=True)
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    spy = (
        "<script>onload = () => { const e = document.documentElement, [i] = document.images; "
        "document.title = `${e.scrollWidth - e.clientWidth} ${i.naturalWidth > 0} ${getComputedStyle(i).borderTopWidth}`; }</script>"
    )
    _, refused = browse(page.replace("</body>", f"{spy}</body>"), "--dump-dom")
    assert refused, "the control failed: the browser must complain of a script, which the page's policy forbids"
    allowed = page.replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'")
    shown, complaints = browse(allowed.replace("</body>", f"{spy}</body>"), "--dump-dom")
    assert complaints == []
    assert (
        "<title>0 true 1px</title>" in shown
    )  # nothing sticks out sideways, the figure is drawn, the style is applied
    _, complaints = browse(page, f"--screenshot={tmp_path / 'page.png'}")
    assert complaints == []
    assert (tmp_path / "page.png").stat().st_size > 20_000
