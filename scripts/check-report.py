#!/usr/bin/env python3
"""Tries a report's page in a browser: check-report.py CHROMIUM PAGE [SCREENSHOTS]. `scripts/check-report` gets both and calls this.

Loaded from a file, the page may ask for nothing and say nothing to the console. Tables sort, variants and filters hide what
they name, everything works with the keyboard, both colour schemes are legible, and texts of records stay texts.
"""

import pathlib
import sys

from playwright.sync_api import sync_playwright



def check(what, good, found=""):
    if not good:
        raise SystemExit(f"{what}: not so. {found}")
    print(f"  {what}")


def luminance(colour):
    """Relative luminance of `rgb(r, g, b)`, as WCAG 2 has it."""
    parts = [float(part) / 255 for part in colour.strip("rgba()").split(",")[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(page, selector):
    ink = page.evaluate("s => getComputedStyle(document.querySelector(s)).color", selector)
    paper = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    a, b = sorted([luminance(ink), luminance(paper)], reverse=True)
    return (a + 0.05) / (b + 0.05)


def numbers(page):
    """The first open table with numbers, by its id: it may lose its lines while it is tried."""
    found = page.locator("details[open]:has(th button):has(td.number)").first
    return page.locator(f"details#{found.get_attribute('id')}")


def column(table, place):
    return table.evaluate("(t, i) => [...t.querySelectorAll('tbody tr')].map(r => r.cells[i].textContent)", place)


def sorts(page):
    table = numbers(page)
    headers = table.locator("th")
    place = next(i for i in range(headers.count()) if "number" in (headers.nth(i).get_attribute("class") or ""))
    as_number = lambda texts: [float(t) for t in texts if t.replace(".", "", 1).replace("e-", "", 1).isdigit()]
    before = column(table, place)
    headers.nth(place).locator("button").click()
    up = as_number(column(table, place))
    check("a click on a column's title sorts its lines", up == sorted(up) and len(up) > 1, up)
    check("the title says so", headers.nth(place).get_attribute("aria-sort") == "ascending")
    check("the sorted title keeps the focus", page.evaluate("() => document.activeElement.closest('th') !== null"))
    page.keyboard.press("Enter")
    down = as_number(column(table, place))
    check("Enter on it sorts the other way", down == sorted(down, reverse=True) and headers.nth(place).get_attribute("aria-sort") == "descending")
    check("no line is lost", sorted(column(table, place)) == sorted(before))


def toggles(page):
    marks = lambda: page.locator("figure .mark").count()
    columns = lambda: page.locator("details[open] th").count()
    chip = page.locator(".chip").first
    name = chip.inner_text()
    before, shown = marks(), columns()
    chip.click()
    check("a variant that is switched off leaves the figures", 0 < marks() < before, f"{marks()} of {before}")
    check("and the tables", columns() < shown)
    check("its button says so", chip.get_attribute("aria-pressed") == "false")
    check("its name is in no legend", name not in page.locator(".legend li").all_inner_texts())
    chip.focus()
    page.keyboard.press("Space")
    check("the space bar switches it on again", marks() == before and columns() == shown)


def filters(page):
    lines = lambda: page.locator("details[open] tbody tr").count()
    for select in page.locator("#filters select").all():
        before = lines(), page.locator("figure .mark").count()
        select.select_option(index=1)
        after = lines(), page.locator("figure .mark").count()
        check(f"the filter {select.get_attribute('name')} shows less", after != before and sum(after) < sum(before), (before, after))
        select.select_option(index=0)
        check("and everything again", (lines(), page.locator("figure .mark").count()) == before)
    table = numbers(page)
    before = table.locator("tbody tr").count()
    table.locator("input").fill("no line holds this")
    check("a table's own filter hides lines", table.locator("tbody tr").count() == 0)
    table.locator("input").fill("")
    check("and shows them again", table.locator("tbody tr").count() == before)


def hovers(page):
    first = page.locator("figure .mark").first
    first.scroll_into_view_if_needed()
    page.wait_for_timeout(800)  # the page scrolls smoothly, and scrolling hides what was told
    first.hover()
    page.locator("#tip").wait_for(timeout=5000)
    check("a mark under the pointer tells its value", page.locator("#tip").is_visible() and page.locator("#tip").inner_text().strip())
    figure = page.locator("figure").first
    figure.focus()
    page.wait_for_timeout(800)
    page.keyboard.press("ArrowRight")
    told = page.locator("#tip").inner_text()
    page.keyboard.press("ArrowRight")
    check("arrow keys go from mark to mark", told and told != page.locator("#tip").inner_text())
    page.keyboard.press("Escape")
    check("Escape ends it", page.locator("#tip").is_hidden())


def keyboard(page):
    page.reload()
    seen = []
    for _ in range(12):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("() => { const a = document.activeElement; const s = getComputedStyle(a); return [a.tagName, s.outlineStyle !== 'none' && s.outlineWidth !== '0px']; }"))
    check("the tab key reaches links and buttons", {"A", "BUTTON"} <= {tag for tag, _ in seen}, seen)
    check("what has the focus shows it", all(outlined for _, outlined in seen), seen)


def closed(page):
    details = page.locator("details:not([open])")
    if details.count():
        details.first.locator("summary").focus()
        page.keyboard.press("Enter")
        page.wait_for_function("() => [...document.querySelectorAll('details[open]')].every(d => d.querySelector('tbody'))")
        check("a closed table opens with Enter and has its lines", True)


def main(chromium, path, screenshots=None):
    address = pathlib.Path(path).resolve().as_uri()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        said, asked, backgrounds = [], [], []
        for scheme in ("light", "dark"):
            print(f"{scheme}, as the system asks")
            page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
            page.on("request", lambda request: asked.append(request.url))
            page.goto(address)
            check("figures and tables are drawn", page.locator("figure svg").count() > 0 and page.locator("tbody tr").count() > 0)
            check("nothing in it is NaN", page.locator("svg [x='NaN'], svg [width='NaN'], svg [cx='NaN'], svg [cy='NaN']").count() == 0)
            backgrounds.append(page.evaluate("() => getComputedStyle(document.body).backgroundColor"))
            for selector in ("body", "figcaption", ".note", "a[href]", "td.failed", "td.missing", "td.best"):
                if page.locator(selector).count():
                    check(f"{selector} is legible", contrast(page, selector) >= 4.5, contrast(page, selector))
            if screenshots:
                folder = pathlib.Path(screenshots)
                folder.mkdir(parents=True, exist_ok=True)
                page.screenshot(path=folder / f"report-{scheme}.png")
                page.screenshot(path=folder / f"report-{scheme}-full.png", full_page=True)
            page.locator("#theme").click()
            switched = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
            check("the switch changes the colours", switched != backgrounds[-1])
            sorts(page)
            toggles(page)
            filters(page)
            hovers(page)
            closed(page)
            keyboard(page)
            page.set_viewport_size({"width": 400, "height": 800})
            page.wait_for_timeout(300)
            overflow = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
            check("a narrow window needs no sideways scrolling", overflow <= 0, overflow)
            check("texts of records made no element of their own", page.locator("td b, td script, script").count() == 2)
            page.close()
        browser.close()
    check("light and dark differ", backgrounds[0] != backgrounds[1])
    check("the console is empty", not said, said)
    other = [url for url in asked if url != address and not url.startswith("data:")]
    check("nothing was asked for but the page", not other, other)


if __name__ == "__main__":
    main(*sys.argv[1:])
