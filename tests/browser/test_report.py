"""report.html as people use it: sorted, filtered, opened, by mouse and by keyboard; it loads nothing."""

from __future__ import annotations

import json
import re

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.support.pages import HOSTILE, content_of, sizes_of, small_picture, write_page

SIZES = ["0", "1", "1000", "100000"]
_PAINT = "performance.getEntriesByType('paint').find(e => e.name === 'first-contentful-paint').startTime"


@pytest.mark.parametrize("clusters", SIZES)
def test_a_report_of_any_size_opens_quickly_without_network_and_without_errors(clusters, reports, tab):
    path = reports(clusters)
    tab.open(path)
    # A second on an idle machine, which the benchmark measures; this one may be busy.
    assert tab.page.evaluate(_PAINT) < 5000
    assert tab.requests == [path.as_uri()]
    assert tab.problems == []
    count = int(clusters)
    assert tab.found() == f"{count:,} {'cluster' if count == 1 else 'clusters'}"
    assert tab.numbers() == list(range(min(count, 48)))
    tab.keep("page")


def test_the_page_says_so_when_there_are_no_clusters(reports, tab):
    tab.open(reports("0"))
    assert tab.page.inner_text("#cards") == "There are no clusters."
    assert tab.page.locator("#pages").is_hidden()


@pytest.mark.parametrize("clusters", ["1000", "100000"])
def test_clusters_are_sorted_by_what_is_chosen_both_ways(clusters, reports, tab):
    tab.open(reports(clusters))
    for key, column in {
        "cohesion": "cohesion",
        "last": "last",
        "weakest": "weakest",
        "cameras": "sourceCounts",
    }.items():
        tab.page.select_option("#sort", key)
        tab.page.wait_for_function(
            "key => view.order.length && document.getElementById('sort').value === key", arg=key
        )
        for _ in range(2):
            tab.page.wait_for_timeout(250)
            values = tab.page.evaluate("name => view.order.map(c => columns[name][c])", column)
            known = [value for value in values if value is not None]
            assert known == sorted(known, reverse=tab.page.inner_text("#direction") == "Descending")
            assert values[len(known) :] == [None] * (len(values) - len(known))
            assert tab.numbers() == tab.page.evaluate("view.order.slice(0, 48)")
            tab.page.click("#direction")
    assert tab.problems == []


def test_filters_narrow_the_list_and_clear_gives_it_back(reports, tab):
    tab.open(reports("1000"))
    sizes = tab.page.evaluate("columns.size")
    tab.page.click("#more")
    tab.page.fill("#size-from", "3")
    tab.page.fill("#size-to", "5")
    expected = [number for number, size in enumerate(sizes) if 3 <= size <= 5]
    tab.until_found(f"{len(expected):,} of 1,000 clusters")
    assert tab.numbers() == expected[:48]
    tab.page.fill("#cohesion-to", "0.7")
    cohesion = tab.page.evaluate("columns.cohesion")
    looser = [number for number in expected if cohesion[number] <= 7000]
    tab.until_found(f"{len(looser):,} of 1,000 clusters")
    tab.page.click("#reset")
    tab.until_found("1,000 clusters")

    tab.page.select_option("#source", label="cam3")
    with_camera = tab.page.evaluate(
        "columns.size.map((_, c) => c).filter(c => columns.sources"
        ".slice(sourceStarts[c], sourceStarts[c + 1]).some(s => facts.sources[s] === 'cam3'))"
    )
    tab.until_found(f"{len(with_camera):,} of 1,000 clusters")
    tab.page.click("#reset")
    tab.until_found("1,000 clusters")

    tab.page.fill("#time-from", "2026-04-25T00:00")
    begin = 1_777_075_200_000  # that time
    base = tab.page.evaluate("facts.baseMs")
    late = [
        c
        for c, last in enumerate(tab.page.evaluate("columns.last"))
        if last is not None and base + last >= begin
    ]
    tab.until_found(f"{len(late):,} of 1,000 clusters")
    tab.page.fill("#size-from", "100000")
    tab.until_found("0 of 1,000 clusters")
    assert tab.page.inner_text("#cards") == "No cluster meets all of these filters."
    assert tab.problems == []


def test_an_object_a_track_and_a_number_are_found(reports, tab):
    tab.open(reports("1000"))
    member = tab.page.evaluate("memberAt(700, 0)")
    tab.page.fill("#search", member["id"].upper())
    tab.until_found("1 of 1,000 clusters")
    assert tab.numbers() == [700]
    tab.page.fill("#search", "#12")
    tab.until_found("1 of 1,000 clusters")
    tab.page.wait_for_function("() => document.querySelector('.card .number').textContent === '#12'")
    tab.page.click("#reset")
    tab.page.click("#more")
    tab.page.fill("#track", f"{member['track']}")
    tab.page.wait_for_function("() => document.getElementById('found').textContent.includes(' of ')")
    shown = tab.numbers()
    assert 700 in shown
    for number in shown:
        tracks = tab.page.evaluate(
            "c => Array.from({length: columns.listed[c]}, (_, i) => memberAt(c, i).track)", number
        )
        assert any(member["track"] in track for track in tracks)


def test_an_opened_cluster_shows_its_members_and_its_weakest_pair_side_by_side(reports, tab):
    tab.open(reports("pictures"))
    tab.page.click(".card [data-open='0']")
    dialog = tab.page.locator("dialog#cluster")
    assert dialog.is_visible()
    size = tab.page.evaluate("columns.size[0]")
    assert tab.page.inner_text("#cluster-heading") == f"Cluster 0: {size:,} objects"
    pair = tab.page.locator(".pair")
    assert pair.locator("figure").count() == 2
    weakest = tab.page.evaluate("columns.weakest[0]") / 10_000
    assert pair.locator("strong").inner_text() == f"{weakest:.4f}"
    ends = tab.page.evaluate("[columns.a[0], columns.b[0]].map(i => memberAt(0, i).id)")
    assert pair.locator("figcaption code").all_inner_texts() == ends
    first = dialog.locator(".members figcaption").first.inner_text().split("\n")
    member = tab.page.evaluate("(({id, time, source}) => [id, timeText(time), source])(memberAt(0, 0))")
    assert [line for line in member if line] == first[: len([line for line in member if line])]
    assert dialog.locator(".members img").first.evaluate("image => image.complete && image.naturalWidth > 0")
    tab.page.select_option("#member-sort", "far")
    central = [float(text.split()[0]) for text in dialog.locator(".members .central").all_inner_texts()]
    assert central == sorted(central)
    tab.keep("cluster")
    tab.page.click("#next-cluster")
    assert tab.page.inner_text("#cluster-heading").startswith("Cluster 1:")
    assert tab.page.evaluate("location.hash") == "#cluster-1"
    tab.page.click("#close-cluster")
    assert not dialog.is_visible()
    assert tab.problems == []


def test_what_components_would_have_merged_is_on_cards_in_filters_and_in_the_opened_cluster(reports, tab):
    tab.open(reports("average"))
    assert "would have merged these 200 clusters into 180" in tab.page.inner_text(".intro")
    button = tab.page.locator(".card .component").first
    assert button.inner_text() == "+2 by components"
    assert tab.page.locator(".card", has_text="#31").locator(".component").count() == 0
    button.click()
    tab.until_found("3 of 200 clusters")
    assert tab.numbers() == [0, 1, 2]
    assert tab.page.locator("dialog#cluster").is_hidden()

    tab.page.click(".card [data-open='1']")
    section = tab.page.locator(".one-component")
    size = sum(tab.page.evaluate("columns.size.slice(0, 3)"))
    assert f"one component of {size:,} objects" in section.inner_text()
    assert [text.split()[0] for text in section.locator(".others button").all_inner_texts()] == ["#0", "#2"]
    tab.keep("cluster")
    section.locator("[data-open='2']").click()
    assert tab.page.inner_text("#cluster-heading").startswith("Cluster 2:")
    tab.page.click("#close-cluster")
    tab.page.click("#reset")
    tab.until_found("200 clusters")

    tab.page.click("#more")
    tab.page.check("#merged")
    tab.until_found("30 of 200 clusters")
    tab.page.click("#reset")
    tab.until_found("200 clusters")
    tab.page.select_option("#sort", "component")
    tab.page.wait_for_function("() => view.order.length === 200 && view.order[0] <= 2")
    sizes = tab.page.evaluate("view.order.map(c => keys.component[c])")
    assert sizes == sorted(sizes, reverse=True)
    tab.keep("page")
    assert tab.problems == []


def test_low_quality_is_marked_on_cards_and_members_and_is_filtered_for(reports, tab):
    tab.open(reports("average"))
    low = tab.page.evaluate("columns.low")
    assert 0 < sum(one > 0 for one in low) < 200
    tab.page.click("#more")
    tab.page.check("#low")
    with_low = [cluster for cluster, count in enumerate(low) if count]
    tab.until_found(f"{len(with_low)} of 200 clusters")
    assert tab.numbers() == with_low[:48]
    assert tab.page.locator(".card .mark-low").count() == min(48, len(with_low))
    tab.page.click(f".card [data-open='{with_low[0]}']")
    listed = tab.page.evaluate(
        "c => Array.from({length: columns.listed[c]}, (_, i) => memberAt(c, i)).slice(0, 60).map(m => m.low)",
        with_low[0],
    )
    assert tab.page.locator(".members .mark-low").count() == sum(listed) > 0
    # The figures of the first cluster are of a sample, which the page says.
    tab.page.goto(f"{reports('average').as_uri()}#cluster-0")
    tab.page.wait_for_selector("html[data-ready]")
    assert "are of a sample" in tab.page.inner_text(".pair")
    assert "≥ " in tab.page.inner_text("#cluster-body .measures")
    assert tab.problems == []


def test_a_report_of_components_offers_nothing_that_only_others_have(reports, tab):
    tab.open(reports("1000"))
    tab.page.click("#more")
    assert tab.page.locator("#merged").is_hidden()
    assert tab.page.locator("#low").is_hidden()
    options = tab.page.locator("#sort option").all_inner_texts()
    assert not {"component size", "low quality"} & set(options)
    assert tab.page.locator(".component, .mark-low").count() == 0


def test_a_link_to_a_cluster_opens_it(reports, tab):
    tab.open(reports("1000"), "#cluster-30")
    assert tab.page.inner_text("#cluster-heading").startswith("Cluster 30:")


def test_a_warning_leads_to_its_cluster(reports, tab):
    tab.open(reports("1000"))
    assert tab.page.locator(".warning li").count() >= 1
    tab.page.click(".warning button")
    assert tab.page.inner_text("#cluster-heading").startswith("Cluster 0:")


def test_everything_can_be_done_with_the_keyboard(reports, tab):
    tab.open(reports("1000"))
    focused = "document.activeElement.id || document.activeElement.textContent"
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate(focused) == "Skip to the clusters"
    tab.page.keyboard.press("Enter")
    for _ in range(20):
        tab.page.keyboard.press("Tab")
        if tab.page.evaluate(
            "document.activeElement.dataset.open === '0' && !!document.activeElement.closest('.card')"
        ):
            break
    tab.page.keyboard.press("Enter")
    assert tab.page.evaluate(focused) == "cluster-heading"
    tab.page.keyboard.press("ArrowRight")
    assert tab.page.inner_text("#cluster-heading").startswith("Cluster 1:")
    for _ in range(30):  # the page behind it cannot be reached
        tab.page.keyboard.press("Tab")
        assert tab.page.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        )
    tab.page.keyboard.press("Escape")
    assert tab.page.evaluate("document.activeElement.dataset.open") == "0"
    tab.page.keyboard.press("/")
    tab.page.keyboard.type("#5")
    tab.until_found("1 of 1,000 clusters")
    tab.page.keyboard.press("Control+A")
    tab.page.keyboard.press("Delete")
    tab.until_found("1,000 clusters")
    tab.page.focus("#next-page")
    tab.page.keyboard.press("Enter")
    assert tab.numbers()[0] == 48
    tab.page.focus("#curve-slider")
    before = tab.page.inner_text("#curve-reading")
    tab.page.keyboard.press("ArrowRight")
    assert tab.page.inner_text("#curve-reading") != before
    assert tab.problems == []


def test_the_colours_follow_the_system_and_can_be_chosen(reports, new_tab):
    def background(tab):
        return tab.page.evaluate("getComputedStyle(document.body).backgroundColor")

    light, dark = new_tab(color_scheme="light"), new_tab(color_scheme="dark")
    for one in (light, dark):
        one.open(reports("1000"))
    assert background(light) != background(dark)
    of_the_system = background(dark)
    light.page.click("[data-theme-choice=dark]")
    assert background(light) == of_the_system
    assert light.page.get_attribute("[data-theme-choice=dark]", "aria-pressed") == "true"
    light.keep("dark")
    light.page.reload()
    light.page.wait_for_selector("html[data-ready]")
    assert background(light) == of_the_system
    dark.page.click("[data-theme-choice=light]")
    assert background(dark) != of_the_system


def test_hostile_text_in_every_field_is_shown_as_text(reports, tab):
    path = reports("hostile")
    tab.page.on("dialog", lambda dialog: tab.problems.append(dialog.message))
    tab.open(path)
    assert "<!--" in tab.page.title()
    shown = HOSTILE[:40]
    for place in ("h1", ".request", ".stamp", ".warning p", ".ids"):
        assert shown in tab.page.locator(place).first.inner_text(), place
    assert shown in "".join(tab.page.locator("#source option").all_inner_texts())
    tab.page.click(".card [data-open='0']")
    assert shown in "".join(tab.page.locator("dialog .cameras").all_inner_texts())
    caption = tab.page.locator(".members figcaption").first.inner_text()
    assert caption.count(shown) >= 2  # the id and the track
    for text in (caption, tab.page.inner_text("body")):
        assert "\u202e" not in text
        assert "\\u202egpj.exe" in text
        assert "characters)" in text
    assert tab.page.locator("img[src=x]").count() == 0
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert tab.problems == []
    assert [url for url in tab.requests if not url.startswith("data:")] == [path.as_uri()]
    tab.keep("cluster")


def test_nothing_runs_and_nothing_is_loaded_but_what_the_page_brought(reports, tab):
    tab.open(reports("1"))
    blocked = tab.page.evaluate(
        """async () => {
          const seen = [];
          const note = (event) => seen.push(event.effectiveDirective);
          document.addEventListener("securitypolicyviolation", note);
          const script = document.createElement("script");
          script.textContent = "window.ran = true";
          document.body.append(script);
          await fetch("https://example.org/").catch(() => {});
          const style = document.createElement("style");
          style.textContent = "body { color: red }";
          document.head.append(style);
          await new Promise((resolve) => setTimeout(resolve, 200));
          return [seen, window.ran ?? false];
        }"""
    )
    assert set(blocked[0]) == {"script-src-elem", "connect-src", "style-src-elem"}
    assert blocked[1] is False


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["0", "pictures", "average", "hostile"])
def test_axe_finds_no_barrier(name, scheme, reports, new_tab):
    tab = new_tab(color_scheme=scheme, reduced_motion="reduce").open(reports(name))
    found = Axe().run(tab.page).response["violations"]
    if name != "0":
        tab.page.click("#more")
        tab.page.click(".card [data-open='0']")
        found += Axe().run(tab.page).response["violations"]
    tab.keep("axe")
    described = [
        {"id": one["id"], "impact": one["impact"], "nodes": [node["html"][:200] for node in one["nodes"]][:3]}
        for one in found
    ]
    assert described == [], json.dumps(described, indent=1)


@pytest.mark.parametrize("name", ["pictures", "average", "hostile"])
def test_a_narrow_screen_needs_no_sideways_scrolling(name, reports, new_tab):
    tab = new_tab(viewport={"width": 400, "height": 800}).open(reports(name))
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 400
    tab.keep("page", whole=True)
    tab.page.click(".card [data-open='0']")
    assert tab.page.evaluate("document.getElementById('cluster').scrollWidth") <= 400
    tab.keep("cluster")


def test_it_prints_without_controls_and_an_opened_cluster_alone(reports, tab):
    tab.open(reports("pictures"))
    tab.page.emulate_media(media="print", color_scheme="dark")
    assert tab.page.locator("#controls").is_hidden()
    assert tab.page.locator(".tiles").is_visible()
    assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    tab.keep("page", whole=True)
    assert len(re.findall(rb"/Type\s*/Page\b", tab.page.pdf())) > 1
    tab.page.emulate_media(media="screen")
    tab.page.click(".card [data-open='0']")
    tab.page.emulate_media(media="print")
    assert tab.page.locator("dialog .pair").is_visible()
    assert tab.page.locator(".tiles").is_hidden()
    tab.keep("cluster", whole=True)


def test_pictures_that_do_not_fit_are_taken_from_the_folder_beside_the_page(tmp_path, new_tab):
    content = content_of(sizes_of(300), pictures=True)
    path = tmp_path / "report.html"
    counts = write_page(path, content, max_bytes=330_000)
    assert 0 < counts["thumbnails"] < counts["clusters"]
    shown = content.shown
    for position in shown.clusters.order.tolist():
        if shown.image[position] >= 0:
            cluster = int(shown.clusters.numbers[position])
            (tmp_path / "images" / str(cluster)).mkdir(parents=True, exist_ok=True)
            file = tmp_path / "images" / str(cluster) / f"{shown.ids[position]}.jpg"
            file.write_bytes(small_picture(cluster, position))
    tab = new_tab().open(path)
    tab.page.click("#last-page")
    tab.page.wait_for_function(
        "() => [...document.querySelectorAll('.card .face img')].some(i => i.src.startsWith('file:'))"
    )
    assert tab.problems == []

    alone = tmp_path / "alone.html"
    alone.write_bytes(path.read_bytes())
    for file in sorted((tmp_path / "images").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    tab = new_tab().open(alone)
    tab.page.click("#last-page")
    tab.page.wait_for_function("() => beside !== null && beside.failed")
    assert tab.page.locator(".card .face img").count() == 0
    assert tab.page.locator(".card .nobody").count() > 0
    assert len(tab.requests) <= 1 + 3  # it does not go on asking


def test_what_is_left_out_is_said(tmp_path, tab):
    path = tmp_path / "report.html"
    counts = write_page(path, content_of(sizes_of(5000)), max_bytes=300_000, cluster_members=5)
    assert path.stat().st_size <= 300_000
    tab.open(path)
    said = tab.page.inner_text("#left-out")
    assert f"{counts['clusters']:,} largest of 5,000 clusters" in said
    assert f"lists {counts['objects']:,} of " in said
    tab.page.click(".card [data-open='0']")
    assert "are listed, evenly over time" in tab.page.inner_text("#cluster-body")
