"""Any bytes are annotations or a FormatError, whatever they claim, and cost what they are."""

import json
import tracemalloc

import numpy as np
import pytest
from format_files import NAMES, SIZE, sample
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asmkit.annotations import FORMATS, _text, read, write
from asmkit.annotations._reading import ReadOptions
from asmkit.errors import FormatError

one_folder = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
OPTIONS = ReadOptions(image_size=SIZE)
pytestmark = pytest.mark.filterwarnings("ignore:.*names of parts sort as text")


def outcome(name, path, content):
    """What reading some bytes gives: annotations, or None and a clear line."""
    path.write_bytes(content)
    refusal = None
    try:
        found = FORMATS[name].read(path, OPTIONS)
    except FormatError as error:
        refusal = str(error)
    if refusal is not None:
        assert str(path) in refusal
        assert "\n" not in refusal
        assert len(refusal) < 500
        return None
    assert found
    assert all(len(one.points) and not np.isinf(one.points).any() for one in found)
    return found


def refused(name, path, content):
    assert outcome(name, path, content) is None, content[:200]


def same(found, expected):
    return all(
        np.array_equal(one.points, other.points, equal_nan=True)
        for one, other in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("name", NAMES)
def test_any_damage_to_a_file_is_read_or_refused(tmp_path, name):
    path = sample(tmp_path, name)
    whole = path.read_bytes()
    places = st.integers(0, len(whole))

    @one_folder
    @given(st.binary(max_size=40), places, places)
    def damaged(junk, start, end):
        outcome(name, path, whole[:start] + junk + whole[end:])

    damaged()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_cut_anywhere_never_loses_points_in_silence(tmp_path, name):
    path = sample(tmp_path, name)
    whole = path.read_bytes()
    expected = [len(one.points) for one in FORMATS[name].read(path, OPTIONS)]
    for share in np.linspace(0, 0.98, 40):
        found = outcome(name, path, whole[: int(share * len(whole))])
        # What is left may be a shorter list of whole instances, never an instance cut short.
        assert found is None or [len(one.points) for one in found] == expected[: len(found)]


@pytest.mark.parametrize("name", NAMES)
def test_line_ends_and_a_mark_at_the_beginning_change_nothing(tmp_path, name):
    path = sample(tmp_path, name)
    whole = path.read_bytes()
    expected = FORMATS[name].read(path, OPTIONS)
    crlf = whole.replace(b"\n", b"\r\n")
    for content in (crlf, b"\xef\xbb\xbf" + whole, b"\xef\xbb\xbf" + crlf):
        path.write_bytes(content)
        found = read(path, image_size=SIZE)  # by content, where the suffix is shared
        assert same(found, expected)
    if name != "dlib":  # XML says its encoding itself
        path.write_bytes(whole.replace(b"\n", b"\r"))
        assert same(FORMATS[name].read(path, OPTIONS), expected)


NOTHING = (
    *(b"", b" \n", b"\0", b"\0" * 999, b"\xff\xfe\xfd", b"{", b"[]", b"null", b"0", b"<a/>", b"-1"),
    *(
        b"\xff" * 99,
        b"9" * 5000,
        b"=",
        b"LM=",
        b'"',
        b"'",
        b"#",
        b",,,",
        b"{}",
        b"1 1 1 1",
        b"=\n=",
    ),
)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_file_of_the_format_is_refused(tmp_path, name):
    for content in NOTHING:
        refused(name, tmp_path / "a", content)


@pytest.mark.parametrize("name", NAMES)
def test_a_coordinate_that_is_no_finite_number_is_refused(tmp_path, name):
    path = sample(tmp_path, name)
    y = FORMATS[name].read(path, OPTIONS)[0].points[-1, 1]
    as_written = [repr(float(v)) for v in (y, y + 1, SIZE[1] - y, y / SIZE[1])] + [f"'{y:.0f}'"]
    whole = path.read_text()
    found = [text for text in as_written if text in whole][-1]
    quote = "'" if found[0] == "'" else ""
    for bad in ("inf", "-Infinity", "1e999", "9" * 400, "1_0", "١", "x", "0x1"):
        refused(name, path, whole.replace(found, quote + bad + quote, 1).encode())


CLAIMS = {
    "pts": b"n_points: 999999999\n{\n1 1\n}\n",
    "asf": b"999999999\n0 0 0.1 0.1 0 0 0\n",
    "tps": b"LM=999999999\n1 1\n",
    "lm2": b"999999999 Landmarks\nLabels:\na\n2D Image coordinates:\n1 1\n",
    "nts": b"1 999999999L 999999999 1 9999 DIM=3\na\n1 1 1\n",
    "stasm": b"shape\n00000000 a\n{ 999999999 999999999\n1 1\n}\n",
    "ljson": b'{"version": 2, "landmarks": {"points": [[1, 2]], "connectivity": [[0, 999999999]]}}',
    "coco": b'{"images": [], "annotations": [{"image_id": 1e308, "keypoints": [1, 2, 2]}]}',
    "wflw": b"1 " * 196 + b"9" * 5000,
    "csv": b"image,x0,y0," + b"x9" * 5000 + b"\na,1,1\n",
    "muct": b"name,tag,x00,y00," + b"x9" * 5000 + b"\na,0,1,1\n",
    "dlib": b"<dataset><images><image file='a' width='999999999999' height='9'>"
    b"<box top='1' left='1' width='" + b"9" * 400 + b"' height='1'><part name='a' x='1' y='1'/>"
    b"</box></image></images></dataset>",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_claim_costs_no_memory(tmp_path, name):
    tracemalloc.start()
    try:
        refused(name, tmp_path / "a", CLAIMS[name])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_too_large_is_not_read_unless_allowed(tmp_path, name):
    path = sample(tmp_path, name)
    size = path.stat().st_size
    with pytest.raises(FormatError, match=r"larger than .* allow it by max_bytes"):
        read(path, image_size=SIZE, format=name, max_bytes=size - 1)
    assert read(path, image_size=SIZE, format=name, max_bytes=size)
    with pytest.raises(ValueError, match="expected a positive number"):
        read(path, max_bytes=0)


def test_so_many_lines_that_they_take_long_are_refused_unless_allowed(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"image,x0,y0\n,1,2\n" + b"\n" * 1_000_000)
    with pytest.raises(FormatError, match=r"more than 1000000 lines.*allow it by max_bytes"):
        read(path)
    assert len(read(path, max_bytes=2 * 32 * 2**20)) == 1


def test_so_many_lists_that_they_fill_the_memory_are_refused(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"annotations":[' + b"[]," * 2_000_000 + b"[]]}")
    with pytest.raises(FormatError, match="more than 2000000 objects and lists"):
        read(tmp_path / "a.json", format="coco")


def test_deep_elements_are_refused(tmp_path):
    (tmp_path / "a.xml").write_bytes(b"<a>" * 1_000_000)
    with pytest.raises(FormatError, match="nested 100 deep"):
        read(tmp_path / "a.xml", format="dlib")


@pytest.mark.parametrize("name", [n for n in NAMES if FORMATS[n].holds_many and n != "wflw"])
def test_so_many_annotations_that_they_fill_the_memory_are_refused(tmp_path, name, monkeypatch):
    path = sample(tmp_path, name)
    monkeypatch.setattr(_text, "MAX_ANNOTATIONS", 1)
    with pytest.raises(FormatError, match=r"more than the 1 annotations.*split it"):
        read(path, image_size=SIZE, format=name)


# ---------------------------------------------------------------- JSON and XML


@pytest.mark.parametrize("name", ["ljson", "coco"])
@pytest.mark.parametrize(
    "opening", [b"[", b'{"a":', b'{"version":3,"groups":{"a":', b'{"images":[']
)
def test_deep_nesting_is_refused(tmp_path, name, opening):
    refused(name, tmp_path / "a", opening * 100_000)


@pytest.mark.parametrize("bad", ["true", '"1"', "[1]", "{}", "1e400", "-Infinity"])
def test_what_is_no_number_in_json_is_refused(tmp_path, bad):
    refused(
        "ljson", tmp_path / "a", b'{"version":2,"landmarks":{"points":[[1,%s]]}}' % bad.encode()
    )
    coco = (
        b'{"images":[{"id":1,"file_name":"a"}],"annotations":[{"image_id":1,"keypoints":[1,%s,2]}]}'
    )
    refused("coco", tmp_path / "a", coco % bad.encode())


GOOD_COCO = {
    "images": [{"id": 1, "file_name": "a"}],
    "annotations": [{"image_id": 1, "category_id": 1, "keypoints": [1, 2, 2]}],
    "categories": [{"id": 1, "keypoints": ["a"], "skeleton": [[1, 1]]}],
}


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("images", {"id": None}),
        ("images", {"id": 2}),
        ("images", {"id": []}),
        ("images", {"file_name": 1}),
        ("annotations", {"image_id": []}),
        ("annotations", {"keypoints": []}),
        ("annotations", {"keypoints": None}),
        ("annotations", {"keypoints": [1, 2]}),
        ("annotations", {"keypoints": [1, 2, 3]}),
        ("annotations", {"bbox": [1, 2, -3, 4]}),
        ("annotations", {"bbox": [1, 2, 3]}),
        ("annotations", {"bbox": "1234"}),
        ("categories", {"keypoints": [1]}),
        ("categories", {"skeleton": [[0, 1]]}),
        ("categories", {"skeleton": [[1]]}),
        ("categories", {"skeleton": [[1, 2]]}),
        ("categories", {"skeleton": [1]}),
        ("images", 1),
        ("annotations", "a"),
        ("categories", []),
    ],
)
def test_a_contradiction_in_coco_is_refused(tmp_path, section, change):
    assert outcome("coco", tmp_path / "a", json.dumps(GOOD_COCO).encode())
    (entry,) = GOOD_COCO[section]
    changed = {**entry, **change} if isinstance(change, dict) else change
    bad = {**GOOD_COCO, section: [changed]}
    refused("coco", tmp_path / "a", json.dumps(bad).encode())


def test_two_images_of_one_id_are_refused(tmp_path):
    bad = {**GOOD_COCO, "images": GOOD_COCO["images"] * 2}
    refused("coco", tmp_path / "a", json.dumps(bad).encode())


@pytest.mark.parametrize(
    "group",
    [
        {"points": []},
        {"points": [None, [1]]},
        {"points": [[1, 2], [1, 2, 3]]},
        {"points": [[1, 2, 3, 4]]},
        {"points": [1]},
        {"points": [[1, 2]], "connectivity": [[0, 1]]},
        {"points": [[1, 2]], "connectivity": [[0, True]]},
        {"points": [[1, 2]], "connectivity": [[-1, 0]]},
    ],
)
def test_a_contradiction_in_ljson_is_refused(tmp_path, group):
    for content in (
        {"version": 2, "landmarks": group},
        {"version": 3, "groups": {"": {"landmarks": group}}},
    ):
        refused("ljson", tmp_path / "a", json.dumps(content).encode())


@pytest.mark.parametrize(
    "content",
    [
        {"version": 4},
        {"version": 10**30},
        {"version": "3"},
        {"version": 3, "groups": {}},
        {"version": 3, "groups": []},
        {"version": 1, "groups": []},
        {"version": 1, "groups": [{"landmarks": [{"point": [1, 2]}]}]},
        {"version": 2, "landmarks": {"points": [[1, 2]]}, "labels": [{"label": 1, "mask": []}]},
        {"version": 2, "landmarks": {"points": [[1, 2]]}, "labels": [{"label": "a", "mask": [1]}]},
    ],
)
def test_a_broken_ljson_is_refused(tmp_path, content):
    refused("ljson", tmp_path / "a", json.dumps(content).encode())


LAUGHS = "".join(f'<!ENTITY l{i + 1} "{f"&l{i};" * 10}">' for i in range(9))
BOX = "<box top='1' left='1' width='1' height='1'>"
PART = "<part name='a' x='1' y='1'/>"
FILE = "<image file='{}'>" + BOX + PART + "</box></image>"


@pytest.mark.parametrize(
    "declaration",
    [
        f'<!DOCTYPE d [<!ENTITY l0 "lol">{LAUGHS}]>',
        '<!DOCTYPE d [<!ENTITY l9 SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE d [<!ENTITY % p SYSTEM "http://127.0.0.1/x"> %p; <!ENTITY l9 "a">]>',
        '<!DOCTYPE d SYSTEM "http://127.0.0.1/x.dtd">',
        "<!DOCTYPE dataset>",
    ],
)
def test_document_types_and_entities_are_refused(tmp_path, declaration):
    body = f"<dataset><images>{FILE.format('&l9;')}</images></dataset>"
    (tmp_path / "a.xml").write_text(declaration + body)
    with pytest.raises(FormatError, match="declares a document type or an entity"):
        read(tmp_path / "a.xml")


def test_the_five_entities_of_xml_itself_are_text(tmp_path):
    body = f"<dataset><images>{FILE.format('&lt;&amp;&#228;')}</images></dataset>"
    found = outcome("dlib", tmp_path / "a", body.encode())
    assert found[0].attributes["image_name"] == "<&ä"


@pytest.mark.parametrize("encoding", ["ISO-8859-1", "UTF-8", "UTF-16"])
def test_an_xml_file_says_its_encoding_itself(tmp_path, encoding):
    body = f"<dataset><images>{FILE.format('ä')}</images></dataset>"
    text = f"<?xml version='1.0' encoding='{encoding}'?>{body}"
    found = outcome("dlib", tmp_path / "a", text.encode(encoding))
    assert found[0].attributes["image_name"] == "ä"


@pytest.mark.parametrize(
    "images",
    [
        f"<image file='a'>{BOX}</box></image>",
        f"<image>{BOX}{PART}</box></image>",
        f"<image file='a'><box top='1' left='1' width='1'>{PART}</box></image>",
        f"<image file='a'><box top='x' left='1' width='1' height='1'>{PART}</box></image>",
        f"<image file='a'><box top='1' left='1' width='-1' height='1'>{PART}</box></image>",
        f"<image file='a'>{BOX}{PART}{PART}</box></image>",
        f"<image file='a'>{BOX}<part name='a' x='1'/></box></image>",
        f"<image file='a'>{BOX}{PART}</image></box>",
    ],
)
def test_a_contradiction_in_dlib_is_refused(tmp_path, images):
    refused("dlib", tmp_path / "a", f"<dataset><images>{images}</images></dataset>".encode())


def test_an_unknown_encoding_and_deep_elements_are_no_crash(tmp_path):
    refused("dlib", tmp_path / "a", b"<?xml version='1.0' encoding='no-such'?><dataset/>")
    refused("dlib", tmp_path / "a", b"<?xml version='1.0' encoding='utf-7'?><dataset/>")
    refused("dlib", tmp_path / "a", b"<a>" * 50_000)


def test_many_boxes_of_many_names_are_refused_before_they_multiply(tmp_path):
    boxes = "".join(f"{BOX}<part name='{i}' x='1' y='1'/></box>" for i in range(4000))
    body = f"<dataset><images><image file='a'>{boxes}</image></images></dataset>"
    refused("dlib", tmp_path / "a", body.encode())


# ---------------------------------------------------------------- one contradiction each


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("asf", "2\n0 0 .1 .1 0 0 0\n0 0 .1 .1 0 0 0\na", "point numbers are not 0 to 1"),
        ("asf", "1\n0 0 .1 .1 0 0\na", "is no point"),
        ("asf", "0\na", "says 0 points"),
        ("asf", "1\n0 0 .1 .1 0 0 0\na\nb", "2 lines follow|3 lines follow"),
        ("tps", "1 1\nLM=1\n", "stands before the first LM="),
        ("tps", "LM=1\n1 1\n2 2\n", "says 1 points, but 2"),
        ("tps", "LM=2\n1 1\nIMAGE=a\n", "says 2 points, but 1"),
        ("tps", "LM=1\n1 1 1\n", "3 numbers, expected 2"),
        ("tps", "LM=0\nCURVES=1\nPOINTS=1\n1 1\n", "curves alone are not read"),
        ("tps", "LM=1\n1 1\nCURVES=2\nPOINTS=1\n1 1\n", "says 2 curves, but 1"),
        ("tps", "LM=1\n1 1\nID=1\n2 2\n", "belongs to no LM= or POINTS="),
        ("tps", "LM=1\n1 1\n2 = 2\n", "is no key"),
        ("tps", "LM=1\n1 1\nSCALE=fast\n", "SCALE: could not convert"),
        ("lm2", "1 Landmarks\nNames:\na\n2D Image coordinates:\n1 1", "expected 'Labels:'"),
        (
            "lm2",
            "2 Landmarks\nLabels:\na\nb\n2D Image coordinates:\n1 1",
            "says 2 landmarks, but 1",
        ),
        ("nts", "2 1 2 0 DIM=2\n1 1", "the header is '2 1 2 0 DIM=2'"),
        ("nts", "1 1 3 0 DIM=2\n1 1 1", "expected 0 labels"),
        ("stasm", "shape\n00000000 a\n{ 1 3\n1 1 1 }", "3 columns, expected x and y"),
        ("stasm", "shape\n00000000 a\n{ 1 2\n1 1 }\n0000 b { 2 2 1 1 1 1 }", "shape 2: 2 points"),
        ("stasm", "shape\n80000000 a\n{ 1 4\n1 1 1 1 }", "holds no shape"),
        ("csv", "image,x0,y0\na,1\n", "line 2: 2 fields, but 3"),
        ("csv", "image,x0,y0\n", "no row below the header"),
        ("csv", 'image,x0,y0\n"a,1,1\n', "line 2: .*expected a table"),
        ("csv", "image,x0,x1\na,1,1\n", "the header is 'image,x0,x1'"),
        ("muct", "name,tag,x00,y00\n", "no row below the header"),
        ("muct", "name,tag,x00,y00\na,g,1,1\n", "a tag of hexadecimal digits"),
    ],
)
def test_a_contradiction_is_named(tmp_path, name, text, message):
    (tmp_path / "a").write_text(text)
    with pytest.raises(FormatError, match=message):
        FORMATS[name].read(tmp_path / "a", OPTIONS)


def test_names_of_images_in_json_may_be_any_text(tmp_path):
    for name in ("\0", "\ud800", "..", "/", "C:\\", "a" * 5000, "con\n"):
        content = {**GOOD_COCO, "images": [{"id": 1, "file_name": name}]}
        (face,) = outcome("coco", tmp_path / "a", json.dumps(content).encode())
        assert face.image is None
        assert face.attributes["image_name"] == name


def test_sizes_that_are_none_are_refused(tmp_path):
    for size in ((0, 1), (1.5, 2), (1, 2, 3)):
        with pytest.raises(ValueError, match="two positive whole numbers"):
            read(tmp_path, image_size=size)
        with pytest.raises(ValueError, match="two positive whole numbers"):
            write(
                tmp_path / "a.tps", FORMATS["csv"].read(_table(tmp_path), OPTIONS), image_size=size
            )


def _table(folder):
    path = folder / "t.csv"
    path.write_text("image,x0,y0\n,1,2\n")
    return path
