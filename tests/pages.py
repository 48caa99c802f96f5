"""Checks of HTML pages in headless Chromium, by mouse, keyboard and accessibility rules."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Chromium from $COMP_CHROMIUM, the system, or `playwright install chromium`."""
    api = pytest.importorskip("playwright.sync_api")
    found = os.environ.get("COMP_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    with api.sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except api.Error as error:
            pytest.skip(f"no Chromium starts ({str(error).splitlines()[0]})")
        yield started
        started.close()


@pytest.fixture
def browser(chromium: Any) -> Iterator[Any]:
    """Chromium, whose pages are closed after each test."""
    yield chromium
    for context in chromium.contexts:
        context.close()


def opened(browser: Any, place: Path | str, **options: Any) -> tuple[Any, list[str]]:
    """Return the page, opened without a network, and a list of its errors, messages and network requests. A
    page with an address on this machine may ask there."""
    own = place if isinstance(place, str) else place.resolve().as_uri()
    assert own.startswith(("file:", "http://127.0.0.1:"))
    context = browser.new_context(offline=own.startswith("file:"), **options)
    page, heard = context.new_page(), []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: heard.append(request.url) if wants_network(request.url, own) else None)
    page.goto(own)
    return page, heard


def wants_network(url: str, own: str = "file:") -> bool:
    return not url.startswith(("file:", "data:", own))


def check_accessible(page: Any) -> None:
    """Assert that axe-core finds nothing serious."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page).response["violations"]
    serious = [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]
    assert not serious, serious


def content_of(path: Path) -> dict[str, Any]:
    """Return the data inside a report."""
    text = path.read_text(encoding="utf-8")
    return json.loads(
        text.partition('<script id="data" type="application/json">')[2].partition("</script>")[0]
    )


def check_report(browser: Any, path: Path, *, looks: bool = False) -> None:
    """Check a report: no errors, no network, filters, sorting and heat maps, all usable by keyboard; with
    `looks` in dark mode and on a phone too."""
    assert path.stat().st_size < 15e6
    data = content_of(path)
    names = [row["name"] for row in data["classes"]]
    for scheme in ("dark", "light") if looks else ("light",):
        page, heard = opened(browser, path, viewport={"width": 1200, "height": 900}, color_scheme=scheme)
        check_accessible(page)
        assert not heard, heard
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    check_filters(page, data, names)
    check_sorting(page, names)
    check_viewer(page, data)
    check_address(page, data, names)
    assert not heard, heard
    if not looks:
        return
    phone, heard = opened(browser, path, viewport={"width": 390, "height": 844}, has_touch=True)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    check_heads_stand_over_their_columns(phone)
    phone.locator("#gallery button").first.tap()
    assert phone.evaluate("document.getElementById('viewer').scrollWidth") <= 390
    check_accessible(phone)
    assert not heard, heard


def check_heads_stand_over_their_columns(page: Any) -> None:
    """Check alignment after scrolling tables that are wider than the screen."""
    apart = page.evaluate(
        "[...document.querySelectorAll('.scroll')].flatMap(box => { box.scrollLeft = 200;"
        "const place = cell => [cell.getBoundingClientRect().left, cell.getBoundingClientRect().right];"
        "const row = box.querySelector('tbody tr'); const heads = box.querySelectorAll('thead tr > *');"
        "const found = [...heads].filter((head, i) => row &&"
        "`${place(head)}` != `${place(row.children[i])}`);"
        "box.scrollLeft = 0; return found.map(head => head.innerText) })"
    )
    assert not apart, apart


def check_filters(page: Any, data: dict[str, Any], names: list[str]) -> None:
    def is_missed(image: dict[str, Any], c: int) -> bool:
        return c in image["true"] and c not in image["decided"]

    label = max(range(len(names)), key=lambda c: sum(is_missed(image, c) for image in data["images"]))
    page.select_option("#label", str(label))
    page.select_option("#kind", "missed")
    missed = [image for image in data["images"] if is_missed(image, label)]
    said = page.inner_text("#count")
    assert said.startswith(f"{min(48, len(missed))} of {len(missed)} such images")
    assert (
        f"{data['classes'][label]['misses']:,} of {data['classes'][label]['n']:,} with {names[label]}" in said
    )
    shown = page.locator("#gallery .miss").all_inner_texts()
    assert sum(f" {names[label]} " in f" {text} " for text in shown) == min(48, len(missed)) > 0
    page.select_option("#order", "-p")
    found = ids(page)
    p = {image["id"]: image["probs"].get(str(label), 0) for image in missed}
    assert [p[name] for name in found] == sorted(p.values())[:48]
    page.select_option("#label", "")
    page.select_option("#kind", "any")
    page.select_option("#order", "loss")
    losses = [float(text) for text in re.findall(r"loss ([\d.]+)", page.inner_text("#gallery"))]
    assert losses == sorted(losses, reverse=True) and len(losses) == min(48, len(data["images"]))
    if len(data["images"]) > 48:
        page.focus("#more")
        page.keyboard.press("Enter")
        assert page.locator("#gallery li").count() == min(96, len(data["images"]))
        assert page.evaluate(
            "document.activeElement.closest('li') === document.getElementById('gallery').children[48]"
        )


def ids(page: Any) -> list[str]:
    return [text.partition(", loss")[0] for text in page.locator("#gallery .quiet").all_inner_texts()]


def check_sorting(page: Any, names: list[str]) -> None:
    assert page.locator("#classes-table th[aria-sort]").count() == 1  # the worst first
    head = page.locator("#classes-table thead button", has_text="images")
    head.focus()
    page.keyboard.press("Enter")
    assert page.locator("#classes-table th[aria-sort]").get_attribute("aria-sort") == "descending"
    numbers = [
        int(text.replace(",", ""))
        for text in page.locator("#classes-table td:nth-child(2)").all_inner_texts()
    ]
    assert numbers == sorted(numbers, reverse=True)
    page.keyboard.press("Enter")
    assert page.locator("#classes-table th[aria-sort]").get_attribute("aria-sort") == "ascending"
    page.locator("#classes-table thead button", has_text="label").click()
    assert page.locator("#classes-table tbody th").all_inner_texts() == sorted(names, key=str.lower)


def check_viewer(page: Any, data: dict[str, Any]) -> None:
    page.select_option("#kind", "any")
    card = page.locator("#gallery button").first
    card.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.getElementById('viewer').open")
    check_accessible(page)
    first = page.inner_text("#viewer-title")
    assert painted(page) == 0
    image = next(image for image in data["images"] if image["id"] == first)
    page.wait_for_function("document.getElementById('large').complete")
    assert ("large" in image) == (page.evaluate("document.getElementById('large').naturalWidth") > 160)
    assert page.evaluate("[...document.images].every(of => of.id == 'large' || of.naturalWidth <= 160)")
    page.locator("#zoom").fill("3")
    assert page.evaluate("(of => of.scrollWidth / of.clientWidth)(document.getElementById('frame'))") > 2.9
    page.locator("#zoom").fill("1")
    card.evaluate("() => document.getElementById('viewer').focus()")
    if any(image["maps"] for image in data["images"]):
        while not page.locator("#viewer-labels button[data-label]").count():
            page.keyboard.press("ArrowRight")
        button = page.locator("#viewer-labels button[data-label]").first
        button.focus()
        page.keyboard.press("Enter")
        assert button.get_attribute("aria-pressed") == "true"
        assert painted(page) > 1000
        assert "speaks for" in page.inner_text("#heat-about")
        check_accessible(page)
        page.locator("#opacity").fill("20")
        assert page.evaluate("document.getElementById('heat').style.opacity") == "0.2"
        page.focus("#compare")
        for press, hidden in ((page.keyboard.down, True), (page.keyboard.up, False)):
            press("Space")
            assert page.locator("#heat").is_hidden() == hidden
        button.focus()
        page.keyboard.press("Enter")
        assert painted(page) == 0
    before = page.inner_text("#viewer-title")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#viewer-title") != before
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#viewer-title") == before
    page.keyboard.press("Escape")
    assert not page.evaluate("document.getElementById('viewer').open")
    assert first in page.evaluate("document.activeElement.innerText")


def check_address(page: Any, data: dict[str, Any], names: list[str]) -> None:
    """Check that a label's row shows its images, that the address says what is shown, and that it brings it
    back; that what is not there is passed over; and that the list of sections stays in sight."""
    url = page.url.partition("#")[0]
    row = page.locator("#classes-table tbody th button").last
    name = row.inner_text()
    row.focus()
    page.keyboard.press("Enter")
    label = page.evaluate("document.getElementById('label').selectedOptions[0].textContent")
    assert label == name and page.evaluate("document.activeElement.id") in ("label", "classes-table", "")
    assert page.evaluate("document.querySelector('nav').getBoundingClientRect().top") == 0
    page.select_option("#label", "" if len(names) > 1 else "0")
    page.select_option("#kind", "right")
    page.select_option("#order", "id")
    page.locator("#classes-table thead button", has_text="images").click()
    page.evaluate("document.querySelector('#gallery button')?.click()")
    assert "kind=right&order=id" in page.url and "sort=images+descending" in page.url

    def shown() -> list[Any]:
        texts = [page.inner_text(place) for place in ("#viewer-title", "#classes-table tbody")]
        return [page.url, ids(page), *texts]

    before = shown()
    page.goto("about:blank")
    page.goto(before[0])
    assert shown() == before
    page.goto(f"{url}#label=%3Cnone%3E&kind=odd&order=&image=none&sort=none+descending&section=none")
    assert page.input_value("#kind") == "any"
    assert not page.evaluate("document.getElementById('viewer').open")
    assert page.url == url


def download(page: Any) -> str:
    """Return the file of ticks that the page gives."""
    with page.expect_download() as found:
        page.eval_on_selector("#corrections-file", "link => link.click()")
    return Path(found.value.path()).read_text(encoding="utf-8")


def painted(page: Any) -> int:
    """Return the number of pixels of the heat map that are not transparent."""
    return page.evaluate(
        "(() => { const heat = document.getElementById('heat'), copy = document.createElement('canvas');"
        "copy.width = heat.width; copy.height = heat.height;"
        "const context = copy.getContext('2d', { willReadFrequently: true }); context.drawImage(heat, 0, 0);"
        "const d = context.getImageData(0, 0, heat.width, heat.height).data; let n = 0;"
        "for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n })()"
    )
