"""Reports: well-formed, self-contained, escaped, and with the figures that went in."""

import base64
import io
import json
import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image

from ilora_core.errors import DataError
from ilora_core.evaluate import Evaluation, Figure, compare, evaluate
from ilora_core.intrinsics import Intrinsic
from ilora_core.report import (
    Curves,
    Facts,
    Grid,
    GridRow,
    Panel,
    Picture,
    Provenance,
    Report,
    Series,
    Table,
    Text,
    comparison_table,
    evaluation_table,
    grid_png,
    licence_table,
    render_report,
    versions,
    write_report,
)
from ilora_core.report.curves import nice_ticks, panel_svg, running_mean
from ilora_core.report.pictures import data_uri, to_image
from ilora_core.report.tables import figure_label, number

VOID = {"meta", "img", "br", "link", "input", "hr"}
ROUGHNESS = Intrinsic("roughness", 1, "", "linear")


class Strict(HTMLParser):
    """Fails on a tag that closes nothing; collects tags, attributes and text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(html)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attrs]

    def handle_endtag(self, tag):
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def colour(r, g, b, size=8):
    return torch.tensor([r, g, b]).view(3, 1, 1).expand(3, size, size)


def offsets(*values):
    truth = torch.full((1, 4, 5), 0.5)
    valid = torch.ones_like(truth, dtype=torch.bool)
    return evaluate(((f"k{i}", truth + v, truth, valid) for i, v in enumerate(values)), ROUGHNESS)


@pytest.fixture(scope="module")
def methods():
    return {
        "adapter": offsets(0.1, 0.12, 0.09),
        "probe": offsets(0.2, 0.21, 0.25),
        "ceiling": offsets(0.01, 0.02, 0.01),
    }


@pytest.fixture(scope="module")
def report(methods):
    grid = Grid(
        "Maps",
        ("input", "prediction", "target"),
        [GridRow("room <1>", (colour(1, 0, 0), Picture(colour(0, 1, 0), "12.3°"), None))],
        "A note.",
    )
    curves = Curves(
        "Training",
        [
            Panel(
                "Loss", "step", "MSE", [Series("loss", [(t, 1 / (t + 1)) for t in range(99)], smooth=True)], log_y=True
            ),
            Panel(
                "Validation",
                "step",
                "°",
                [Series("a & b", [(0, 30), (50, 20)]), Series("c", [(0, 31)])],
                {"mean map": 25},
            ),
        ],
    )
    return Report(
        "Roughness <b>bold</b>",
        (
            Text("About", ("First & last.", "Second.")),
            Facts("Numbers", {"labels": "250"}),
            grid,
            curves,
            evaluation_table(methods, bounds=("ceiling",)),
            comparison_table({"adapter against probe": compare(methods["adapter"], methods["probe"], "rms")}),
            Provenance("Provenance", {"train": {"lr": 1e-4, "seeds": [1, 2]}, "hub": "org/<name>", "empty": None}),
            licence_table([("generator", "SD 1.5", "CreativeML-OpenRAIL-M", "org/name")]),
        ),
        summary="One sentence.",
        facts={"device": "cpu"},
        when="2026-11-22 22:00 UTC",
    )


@pytest.fixture(scope="module")
def html(report):
    return render_report(report)


def test_it_is_well_formed_and_says_what_went_in(html):
    page = Strict(html)
    for text in (
        "Roughness <b>bold</b>",
        "One sentence.",
        "2026-11-22 22:00 UTC",
        "device cpu",
        "First & last.",
        "room <1>",
    ):
        assert text in page.text
    for text in ("12.3°", "A note.", "train.lr 0.0001", "train.seeds 1, 2", "hub org/<name>", "CreativeML-OpenRAIL-M"):
        assert text in page.text
    assert "empty None" not in page.text
    assert (page.tags.count("h1"), page.tags.count("h2"), page.tags.count("svg")) == (1, 8, 2)


def test_it_asks_nobody_for_anything(html):
    page = Strict(html)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    for tag, name, value in page.attributes:
        if name in ("src", "href", "srcset", "action", "poster", "data", "xlink:href"):
            assert value.startswith(("data:image/", "#")), (tag, name, value[:40])
        assert not name.startswith("on")
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "://" not in html


def test_links_of_the_contents_lead_somewhere(html):
    page = Strict(html)
    ids = [value for _, name, value in page.attributes if name == "id"]
    links = [value[1:] for _, name, value in page.attributes if name == "href"]
    assert links == ids == [f"s{i}" for i in range(1, 9)]


def test_pictures_are_embedded_and_described(html):
    page = Strict(html)
    sources = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    images = [Image.open(io.BytesIO(base64.b64decode(s.partition(",")[2]))).convert("RGB") for s in sources]
    assert [image.getpixel((3, 3)) for image in images] == [(255, 0, 0), (0, 255, 0)]
    assert [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")] == [
        "input, room <1>",
        "prediction, room <1>",
    ]


def test_both_colour_schemes_define_the_same_colours(html):
    light = set(re.findall(r"(--[\w-]+):", html[html.index(":root") : html.index("@media (prefers")]))
    dark = set(re.findall(r"(--[\w-]+):", html[html.index("@media (prefers") : html.index("* {")]))
    assert light == dark
    assert {f"--c{i}" for i in range(6)} < light


def test_write_report_replaces_the_file_whole(tmp_path, report, html):
    path = tmp_path / "deep" / "report.html"
    write_report(path, report)
    assert path.read_text(encoding="utf-8") == html
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_a_report_without_sections_is_a_page_too():
    page = Strict(render_report(Report("Empty", ())))
    assert "nav" not in page.tags
    assert re.search(r"Empty 20\d\d-\d\d-\d\d \d\d:\d\d UTC", page.text.partition("Empty ")[2])


@pytest.mark.parametrize(
    "section",
    [
        Grid("G", ("a", "b"), [GridRow("one", (colour(0, 0, 0),))]),
        Table("T", ("a", "b"), [("x", "y"), ("x",)]),
    ],
)
def test_rows_that_do_not_fit_are_refused(section):
    with pytest.raises(DataError, match="has 1 columns, its header 2"):
        render_report(Report("R", (section,)))


# ---- tables


def test_evaluation_table_shows_value_interval_protocol_and_the_best(methods):
    table = evaluation_table(methods, bounds=("ceiling",))
    assert list(table.header) == ["", "adapter", "probe", "ceiling"]
    rms, _, psnr = table.rows
    assert rms[0] == "RMS ↓"
    assert [cell.text for cell in rms[1:]] == ["0.1033", "0.2200", "0.0133"]
    figure = methods["adapter"].figures["rms"]
    assert rms[1].detail == f"{figure.low:.4f} … {figure.high:.4f}"
    assert [(cell.best, cell.muted) for cell in rms[1:]] == [(True, False), (False, False), (False, True)]
    assert psnr[0] == "PSNR (dB) ↑"
    assert psnr[1].best
    for part in ("roughness", "protocol raw", "3 pictures", "95 %"):
        assert part in table.caption


def test_the_table_is_drawn_with_its_marks(methods):
    page = Strict(render_report(Report("R", (evaluation_table(methods, bounds=("ceiling",)),))))
    classes = [value.split() for tag, name, value in page.attributes if (tag, name) == ("td", "class")]
    assert len(classes) == 9
    assert sum("best" in c for c in classes) == 3
    assert sum("muted" in c for c in classes) == 3
    assert all("figure" in c for c in classes)
    assert "0.1033 0.0" in page.text


def test_one_method_alone_is_not_the_best(methods):
    assert not any(row[1].best for row in evaluation_table({"adapter": methods["adapter"]}).rows)


def test_chosen_figures_in_the_chosen_order(methods):
    table = evaluation_table(methods, figures=("psnr", "rms"))
    assert [row[0] for row in table.rows] == ["PSNR (dB) ↑", "RMS ↓"]
    with pytest.raises(DataError, match="'nope'"):
        evaluation_table(methods, figures=("nope",))


def test_protocols_do_not_mix_in_one_table(methods):
    other = Evaluation("else", "roughness", 1, {}, {})
    with pytest.raises(DataError, match="another protocol"):
        evaluation_table({"a": methods["adapter"], "b": other})
    with pytest.raises(DataError, match="at least one"):
        evaluation_table({})


def test_missing_intervals_and_figures_become_dashes():
    one = Evaluation("p", "i", 1, {"rms": Figure(math.nan, math.nan, math.nan, "", False)}, {})
    two = Evaluation("p", "i", 1, {"rms": Figure(0.5, math.nan, math.nan, "", False)}, {})
    (row,) = evaluation_table({"one": one, "two": two, "three": Evaluation("p", "i", 1, {}, {})}).rows
    assert [(cell.text, cell.detail) for cell in row[1:]] == [("–", ""), ("0.5000", ""), ("–", "")]


def test_comparison_table_gives_a_verdict(methods):
    a, b = methods["adapter"], methods["probe"]
    table = comparison_table({"a-b": compare(a, b, "rms"), "b-a": compare(b, a, "rms"), "a-a": compare(a, a, "rms")})
    assert [row[3] for row in table.rows] == ["better", "worse", "undecided"]
    assert [row[-1].text for row in table.rows] == ["−0.1167", "+0.1167", "+0.00"]
    assert [row[-1].best for row in table.rows] == [True, False, False]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (123.456, "123.5"),
        (45.678, "45.68"),
        (3.14159, "3.142"),
        (0.04321, "0.0432"),
        (0.00123, "0.00123"),
        (2e-6, "2.0e-06"),
        (math.nan, "–"),
        (0.0, "0.00"),
    ],
)
def test_numbers_have_the_decimals_they_deserve(value, text):
    assert number(value) == text


def test_figures_have_readable_names():
    assert figure_label("below_11_25", True, "%") == "below 11.25° (%) ↑"
    assert figure_label("mean_deg", False, "°") == "mean error (°) ↓"
    assert figure_label("my_own", False) == "my own ↓"


# ---- charts


def chart(panel):
    return ElementTree.fromstring(panel_svg(panel))


def coordinates(element):
    return [tuple(map(float, pair.split(","))) for pair in element.get("points").split()]


def test_a_line_goes_where_its_points_are():
    svg = chart(Panel("P", "x", "y", [Series("s", [(0, 0), (5, 10), (10, 0)])]))
    (a, b, c) = coordinates(svg.find(".//polyline[@class='line']"))
    assert a[0] < b[0] < c[0]
    assert b[0] == pytest.approx((a[0] + c[0]) / 2, abs=0.1)
    assert a[1] == c[1] > b[1]  # up is a smaller y
    assert [t.text for t in svg.findall(".//circle/title")] == ["s, 0: 0", "s, 5: 10", "s, 10: 0"]


def test_levels_bands_marks_and_six_colours():
    series = [Series(f"s{i}", [(0, i), (1, i + 1)], [(0, i - 1, i + 1), (1, i, i + 2)]) for i in range(7)]
    svg = chart(Panel("P", "x", "y", series, {"mean <map>": 12.0}, marked=1))
    assert [g.get("class") for g in svg.findall("g")] == ["s0", "s1", "s2", "s3", "s4", "s5", "s0"]
    assert len(svg.findall(".//polygon[@class='band']")) == 7
    assert svg.find("line[@class='level']") is not None
    assert svg.find("line[@class='marked']") is not None
    assert "mean <map>" in [t.text for t in svg.findall("text")]
    for x, y in (pair for p in svg.findall(".//polygon") for pair in coordinates(p)):
        assert 0 <= x <= 520
        assert 0 <= y <= 290


def test_a_logarithmic_axis_is_even_in_decades_and_drops_what_it_cannot_show():
    svg = chart(Panel("P", "x", "y", [Series("s", [(0, 1), (1, 10), (2, 100), (3, 0), (4, math.nan)])], log_y=True))
    a, b, c = coordinates(svg.find(".//polyline[@class='line']"))
    assert a[1] - b[1] == pytest.approx(b[1] - c[1], abs=0.11)


def test_one_point_equal_points_and_no_points():
    assert len(coordinates(chart(Panel("P", "x", "y", [Series("s", [(3, 7)])])).find(".//polyline"))) == 1
    flat = chart(Panel("P", "x", "y", [Series("s", [(0, 2), (9, 2)])], log_y=True))
    assert len({y for _, y in coordinates(flat.find(".//polyline"))}) == 1
    assert "no points" in panel_svg(Panel("P", "x", "y", [Series("s", [(1, math.nan)])]))


def test_a_spike_does_not_flatten_a_smooth_line():
    points = [(t, 1.0 + 0.1 * math.sin(t)) for t in range(300)]
    points[150] = (150, 1000.0)
    ticks = [
        t.text
        for t in chart(Panel("P", "x", "y", [Series("s", points, smooth=True)])).findall("text[@class='tick end']")
    ]
    assert max(map(float, ticks)) < 200
    plain = chart(Panel("P", "x", "y", [Series("s", points)])).findall("text[@class='tick end']")
    assert "1k" in [t.text for t in plain]


def test_long_lines_are_thinned_but_keep_their_end():
    svg = chart(Panel("P", "x", "y", [Series("s", [(t, t) for t in range(10_000)])]))
    drawn = coordinates(svg.find(".//polyline"))
    assert len(drawn) < 700
    assert drawn[-1][0] == pytest.approx(520 - 14, abs=0.1)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0.13, 0.41, [0.1, 0.2, 0.3, 0.4, 0.5]),
        (5, 5, [2, 3, 4, 5, 6, 7, 8]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks_are_round_and_hold_the_data(low, high, ticks):
    assert nice_ticks(low, high) == pytest.approx(ticks)


def test_running_mean_keeps_the_ends_and_the_middle():
    line = running_mean([(t, float(t)) for t in range(101)], share=0.1)
    assert line[50] == (50, 50.0)
    assert line[0] == (0, 2.5)
    assert len(line) == 101


# ---- pictures


def test_pictures_are_clipped_and_nan_is_black():
    picture = torch.tensor([-1.0, 0.5, 2.0, math.nan]).view(1, 2, 2)
    pixels = list(to_image(picture).get_flattened_data())
    assert pixels == [(0, 0, 0), (128, 128, 128), (255, 255, 255), (0, 0, 0)]
    with pytest.raises(DataError, match="picture is"):
        to_image(torch.zeros(2, 4, 4))


def test_small_pictures_are_exact_and_large_ones_shrink():
    small = torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(0))
    uri, width, height = data_uri(small)
    assert uri.startswith("data:image/png;base64,")
    assert (width, height) == (60, 40)
    back = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert back.tobytes() == to_image(small).tobytes()
    uri, width, height = data_uri(torch.rand(3, 600, 1200))
    assert uri.startswith("data:image/jpeg;base64,")
    assert (width, height) == (512, 256)


def test_grid_png_puts_every_picture_in_its_place(tmp_path):
    path = tmp_path / "grid.png"
    rows = [[colour(1, 0, 0, 64), colour(0, 1, 0, 64)], [colour(0, 0, 1, 64), None]]
    grid_png(path, rows, ("input", "a rather long caption"), row_titles=("one", "two"), title="step 5")
    image = Image.open(path).convert("RGB")
    seen = {name: [] for name in ("red", "green", "blue")}
    wanted = {(255, 0, 0): "red", (0, 255, 0): "green", (0, 0, 255): "blue"}
    for index, pixel in enumerate(image.get_flattened_data()):
        if pixel in wanted:
            seen[wanted[pixel]].append((index % image.width, index // image.width))
    centres = {name: tuple(sum(axis) / len(spots) for axis in zip(*spots, strict=True)) for name, spots in seen.items()}
    assert {len(spots) for spots in seen.values()} == {128 * 128}  # enlarged twofold, whole pixels
    assert centres["red"][1] == centres["green"][1] < centres["blue"][1]
    assert centres["red"][0] == centres["blue"][0] < centres["green"][0]
    assert list(tmp_path.iterdir()) == [path]


def test_grid_png_fits_mixed_and_large_pictures(tmp_path):
    path = tmp_path / "grid.png"
    grid_png(path, [[torch.rand(3, 900, 300), torch.rand(1, 20, 30)]], ("tall", "small"))
    with Image.open(path) as image:
        assert image.height < 400
        assert image.width < 400


def test_grid_png_refuses_rows_that_do_not_fit(tmp_path):
    with pytest.raises(DataError, match="2 pictures"):
        grid_png(tmp_path / "g.png", [[None]], ("a", "b"))
    with pytest.raises(DataError, match="titles"):
        grid_png(tmp_path / "g.png", [[None]], ("a",), row_titles=("x", "y"))
    assert not list(tmp_path.iterdir())


def test_versions_name_what_is_installed():
    found = versions("jinja2", "no-such-distribution")
    assert {"python", "ilora", "torch", "jinja2"} == set(found)


def test_provenance_keeps_everything_in_the_json(html):
    text = Strict(html).text
    start = text.index("{", text.index("as JSON"))
    data, _ = json.JSONDecoder().raw_decode(text[start:])
    assert data == {"train": {"lr": 1e-4, "seeds": [1, 2]}, "hub": "org/<name>", "empty": None}


def test_names_and_scales_of_ones_own_on_the_x_axis():
    bars = [
        Series("one", [(0, 3), (1, 5)], [(0, 2, 4), (1, 4, 6)], joined=False),
        Series("two", [(0.1, 4)], joined=False),
    ]
    svg = chart(Panel("P", "kind", "y", bars, ticks=[(0, "a <b>"), (1, "c" * 90)]))
    labels = [t.text for t in svg.findall("text[@class='tick mid']")]
    assert labels[0] == "a <b>"
    assert labels[1].startswith("ccc")
    assert labels[1].endswith("…")
    lines = [coordinates(line) for line in svg.findall(".//polyline")]
    assert [len({x for x, _ in line}) for line in lines] == [1, 1]  # upright bars, and nothing joins the points
    assert svg.find(".//polygon") is None
    assert [t.text for t in svg.iter("title")] == ["one, a <b>: 3", f"one, {'c' * 90}: 5", "two, a <b>: 4"]
    joined = chart(Panel("P", "x", "y", [Series("s", [(0, 1), (2, 2)])], ticks=[(0, "1"), (2, "100")]))
    (first, last) = coordinates(joined.find(".//polyline"))
    assert first[0] < last[0]
    assert [t.text for t in joined.findall("text[@class='tick mid']")] == ["1", "100"]


def test_one_point_at_a_step_that_is_not_round_is_its_own_tick():
    assert ">24</text>" in panel_svg(Panel("P", "x", "y", [Series("s", [(24, 90.12)])]))
