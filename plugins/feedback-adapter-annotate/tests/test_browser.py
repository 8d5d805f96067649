"""The page in a real browser, as a person uses it: chromium, by selenium.

The tests are skipped where chromium isn't installed, unless FEEDBACK_ADAPTER_BROWSER=required.
"""

import os
import shutil
import time
from pathlib import Path

import pytest
from PIL import Image

import feedback_adapter as fa
from fa_annotate.answers import Answers
from fa_annotate.desk import Folder, Playground
from fa_annotate.examples import examples
from fa_annotate.photos import Photos
from fa_annotate.session import Session

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
REQUIRED = os.environ.get("FEEDBACK_ADAPTER_BROWSER") == "required"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not REQUIRED and not (CHROMIUM and DRIVER),
        reason="chromium isn't installed (Debian: apt-get install chromium chromium-driver)",
    ),
]
SHOTS = os.environ.get("FEEDBACK_ADAPTER_SHOTS")
"""A folder for screenshots of every width, to look at."""


class Page:
    """The page in the browser. Each call waits until the page has done what was asked."""

    def __init__(self, driver, url):
        self.driver, self.url = driver, url
        self.done = 0

    def open(self, fragment="", width=1440, height=900):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get("about:blank")
        self.driver.get(self.url + fragment)
        self.done = 0
        return self.wait()

    def wait(self, jobs=1):
        self.done += jobs
        end = time.monotonic() + 30
        while int(self.script("return document.body.dataset.answered || 0")) < self.done:
            assert time.monotonic() < end, "the page isn't done"
            time.sleep(0.02)
        return self

    def script(self, text, *arguments):
        return self.driver.execute_script(text, *arguments)

    def press(self, *keys, waits=True):
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)
            if waits:
                self.wait()
        return self

    def click(self, selector):
        self.find(selector).click()
        return self.wait()

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector):
        return self.find(selector).text

    def asked(self):
        return self.find("#question").get_attribute("data-label")

    def rows(self):
        """`{label: (answer, probability)}` of the rows that are shown."""
        found = self.script(
            "return [...document.querySelectorAll('#rows .row')]"
            ".map((r) => [r.dataset.label, r.dataset.answer, Number(r.dataset.after)])"
        )
        return {label: (answer, after) for label, answer, after in found}

    def complaints(self):
        return self.driver.get_log("browser")


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    options = webdriver.ChromeOptions()
    profile = tmp_path_factory.mktemp("profile")
    for word in (
        "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars",
        "--disable-background-networking", "--no-first-run", f"--user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(word)
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def adapter():
    return fa.load("coco80-lite0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three of the example photos."""
    found = tmp_path_factory.mktemp("photos")
    photos = examples()
    if not photos:
        pytest.skip("the example photos come with scikit-image")
    for number, name in enumerate(("cup of coffee", "astronaut", "cat"), 1):
        shutil.copyfile(photos[name], found / f"{number} {name}.png")
    return found


@pytest.fixture(scope="module")
def server(serve, adapter, folder):
    photos = Photos.of(folder)
    return serve(Folder(Session(adapter, "coco80-lite0", photos, Answers.open(folder))))


@pytest.fixture
def page(driver, server):
    opened = Page(driver, server.url)
    opened.complaints()
    yield opened.open("#photo=1")
    assert opened.complaints() == []
    answers = server.session.answers
    while answers.undo() is not None:
        pass


def test_nothing_is_prefilled_and_a_yes_moves_other_bars_by_the_numbers_of_the_api(
    page, adapter, folder
):
    before = page.rows()
    assert {answer for answer, _ in before.values()} == {"not asked"}
    page.find("#filter").send_keys("cup")
    page.click('[aria-label="yes: cup"]')
    page.find("#filter").send_keys(Keys.CONTROL + "a", Keys.DELETE)
    images = adapter.transform.open(folder / "1 cup of coffee.png")
    result = adapter.refine(images, fa.Labels({"cup": 1}))
    expected = dict(zip(adapter.labels, result.probabilities[0].tolist(), strict=True))
    after = page.rows()
    assert after["cup"] == ("yes", pytest.approx(1))
    for label, (_, probability) in after.items():
        assert probability == pytest.approx(expected[label], abs=1e-6)
    assert after["bowl"][1] - before["bowl"][1] > 0.1
    moved = page.script(
        "return [...document.querySelectorAll('#moved-list .label')].map((e) => e.textContent)"
    )
    changes = [c.label for c in result.changes(0) if not c.known and abs(c.after - c.before) > 0.01]
    assert moved == changes[:6]
    assert page.text("#moved-title") == "What just moved"
    time.sleep(0.8)  # so long do bars move
    wide = page.script(
        "const r = document.querySelector('[data-label=bowl]'); return "
        "r.querySelector('.fill').clientWidth / r.querySelector('.track').clientWidth"
    )
    assert wide == pytest.approx(expected["bowl"], abs=0.03)
    assert "▲" in page.text("[data-label=bowl] .delta")


def test_keys_are_enough(page, server):
    labels = [page.asked()]
    page.press("y")
    labels.append(page.asked())
    page.press("n")
    labels.append(page.asked())
    page.press("s")
    given = server.session.answers.of("1 cup of coffee.png")
    assert given.labels == {labels[0]: 1, labels[1]: 0}
    assert given.skipped == {labels[2]}
    assert page.asked() not in labels
    page.press("u", "u")
    assert server.session.answers.of("1 cup of coffee.png").labels == {labels[0]: 1}
    page.press(Keys.ARROW_RIGHT)
    assert page.text("#name") == "2 astronaut.png"
    page.press("t", waits=False)
    page.press(*"a person", waits=False)
    page.press(Keys.ENTER)
    assert server.session.answers.of("2 astronaut.png").text == "a person"
    assert page.text("#chips").startswith("“a person”")
    page.press(Keys.ARROW_LEFT)
    assert page.text("#name") == "1 cup of coffee.png"
    page.press("?", waits=False)
    assert page.find("#keys").is_displayed()
    page.press(Keys.ESCAPE, waits=False)
    page.press("/", *"spoon", waits=False)
    assert list(page.rows()) == ["spoon"]
    page.press(Keys.ESCAPE, waits=False)


def test_undo_brings_the_numbers_back(page):
    first = page.rows()
    page.press("y")
    assert page.rows() != first
    page.click("#undo")
    again = page.rows()
    assert again == {label: first[label] for label in again}
    page.press("u")
    assert page.text("#banner-text") == "There is nothing to undo on this photo."


def test_a_click_on_a_given_answer_takes_it_back(page, server):
    label = page.asked()
    page.click("#yes").click(f'[data-label="{label}"] .no')
    assert server.session.answers.of("1 cup of coffee.png").labels == {label: 0}
    page.click(f'[data-label="{label}"] .no')
    assert server.session.answers.of("1 cup of coffee.png").labels == {}


def test_a_reload_resumes(page):
    page.press("y", Keys.ARROW_RIGHT, "n", "y")
    rows, asked, name = page.rows(), page.asked(), page.text("#name")
    page.driver.refresh()
    page.done = 0
    page.wait()
    assert (page.rows(), page.asked(), page.text("#name")) == (rows, asked, name)
    assert page.text("#progress") == "2 of 3 photos have answers"
    page.open()  # without an address of a photo: where the last answer was
    assert page.text("#name") == name


def test_a_second_window_is_told(page, server):
    server.answer(0, "label", "cup", 1)  # as another window does
    before = server.session.answers.revision
    page.press("y")
    assert "in another window, so nothing was saved here" in page.text("#banner-text")
    assert server.session.answers.revision == before
    assert page.rows()["cup"][0] == "yes"
    asked = page.asked()
    page.press("y")
    assert server.session.answers.of("1 cup of coffee.png").labels == {"cup": 1, asked: 1}
    said = [entry["message"] for entry in page.complaints()]  # chromium notes the refusal itself
    assert len(said) == 1
    assert "409" in said[0]


def test_why_says_which_answer_did_what(page, adapter, folder, server):
    server.answer(0, "label", "cup", 1)
    page.open("#photo=1")
    page.press("y")
    label = page.text("#moved-list .label")
    page.find("#moved-list .why").click()
    end = time.monotonic() + 60
    while not page.driver.find_elements(By.CSS_SELECTOR, "#why-list .row"):
        assert time.monotonic() < end, page.text("#why-note")
        time.sleep(0.1)
    shares = page.script(
        "return [...document.querySelectorAll('#why-list .percent')].map((e) => e.textContent)"
    )
    told = server.session.answers.of("1 cup of coffee.png").labels
    images = adapter.transform.open(folder / "1 cup of coffee.png")
    explained = adapter.refine(images, fa.Labels(told), explainable=True).explain(label)
    expected = [100 * row.probability for row in explained.contributions]
    assert [float(s.replace("−", "-")) for s in shares] == pytest.approx(expected, abs=0.051)
    page.press(Keys.ESCAPE, waits=False)
    assert not page.find("#why").is_displayed()


@pytest.mark.parametrize(("width", "height"), [(390, 844), (768, 1024), (1440, 900)])
def test_nothing_is_wider_than_the_window(page, width, height):
    page.open("#photo=1", width, height)
    page.press("y", "y")
    wide = page.script(
        "return [...document.querySelectorAll('body *')].filter((e) => e.offsetParent && "
        "e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 90))"
    )
    assert wide == []
    assert page.script("return document.documentElement.scrollWidth") == width
    assert page.script("return document.querySelector('#yes').getBoundingClientRect().height") > 34
    if SHOTS:
        time.sleep(1.8)
        page.driver.save_screenshot(str(Path(SHOTS) / f"annotate-{width}.png"))


def test_names_are_text_and_never_markup(page, server):
    evil = "<img src=x onerror=document.title='evil'>"
    server.answer(0, "text", "", evil)
    page.open("#photo=1")
    assert evil in page.text("#chips")
    assert page.driver.title == "Annotate " + server.session.photos.folder.name


@pytest.fixture(scope="module")
def playground(serve):
    if not examples():
        pytest.skip("the example photos come with scikit-image")
    return serve(Playground.open())


def test_the_playground_has_photos_checkpoints_and_strategies(driver, playground):
    page = Page(driver, playground.url)
    page.complaints()
    page.open()
    assert page.text("#title") == "coco80-lite0"
    assert len(page.driver.find_elements(By.CSS_SELECTOR, "#strip button")) == len(examples())
    page.click(f"#strip button:nth-of-type({1 + sorted(examples()).index('rocket')})")
    page.find('#checkpoint option[value="imagenet-lite0"]').click()
    page.wait()
    page.find("#coarse").send_keys("vehicle", Keys.ENTER)
    page.wait()
    session = playground.desk.session("imagenet-lite0")
    image = session.adapter.transform.open(examples()["rocket"])
    expected = session.adapter.refine(image, fa.Coarse("vehicle")).probabilities[0]
    top = next(iter(page.rows()))
    assert page.rows()[top][1] == pytest.approx(float(expected[session.names.index(top)]), abs=1e-5)
    page.find('#strategy option[value="newton"]').click()
    page.wait()
    expected = session.adapter.refine(image, fa.Coarse("vehicle"), strategy="newton")
    page.find("#filter").send_keys("missile")
    shown = page.rows()["missile"][1]
    missile = session.names.index("missile")
    assert shown == pytest.approx(float(expected.probabilities[0, missile]), abs=1e-4)
    assert page.script("return document.querySelectorAll('#losses circle').length") == len(
        expected.losses
    )
    assert page.complaints() == []


def test_a_photo_that_is_dropped_is_shown(driver, playground, tmp_path):
    page = Page(driver, playground.url)
    page.open()
    Image.new("RGB", (40, 30), "red").save(tmp_path / "my red.png")
    page.find("#file").send_keys(str(tmp_path / "my red.png"))
    page.wait()
    assert page.text("#name").endswith("my red.png")
    assert page.script("return document.querySelector('#photo').naturalWidth") == 40
    (tmp_path / "notes.png").write_text("no photo")
    page.find("#file").send_keys(str(tmp_path / "notes.png"))
    page.wait()
    assert "is not an image" in page.text("#banner-text")
    page.complaints()


def test_clicks_label_pixels(driver, serve, tiny_session, draw, tmp_path):
    draw(tmp_path / "own.png", size=(64, 32))
    server = serve(tiny_session(tmp_path, "map"))
    page = Page(driver, server.url)
    page.complaints()
    page.open("#photo=1")
    page.press("3", waits=False)  # snow
    box = page.script("const b = document.querySelector('#photo').getBoundingClientRect(); "
                      "return [b.left, b.top, b.width, b.height]")  # fmt: skip
    for x, y, shift in [(48, 8, False), (10, 24, True)]:
        place = [box[0] + (x + 0.5) / 64 * box[2], box[1] + (y + 0.5) / 32 * box[3]]
        page.script(
            "document.elementFromPoint(arguments[0], arguments[1]).dispatchEvent(new MouseEvent("
            "'click', {clientX: arguments[0], clientY: arguments[1], shiftKey: arguments[2], "
            "bubbles: true}))", *place, shift,
        )  # fmt: skip
        page.wait()
    clicks = server.session.answers.of("own.png").clicks
    assert [(c.name, c.value) for c in clicks] == [("snow", [48, 8, 1]), ("snow", [10, 24, 0])]
    result = server.session.refine(0)
    shares = {change.label: change.after for change in result.changes(0)}
    assert {label: after for label, (_, after) in page.rows().items()} == pytest.approx(shares)
    left = page.script("return parseFloat(document.querySelector('.mark').style.left)")
    assert left == pytest.approx(100 * 48.5 / 64, abs=1e-3)
    assert page.find("#overlay").is_displayed()
    page.press("u", "u")
    assert page.script("return document.querySelectorAll('.mark').length") == 0
    assert page.complaints() == []


@pytest.mark.parametrize("width", [390, 1440])
def test_the_playground_is_not_wider_than_the_window(driver, playground, width):
    page = Page(driver, playground.url)
    page.open("#photo=1&strategy=newton", width)
    page.press("y")
    assert page.script("return document.documentElement.scrollWidth") == width
    page.click("#show-heat")
    assert page.script("return document.querySelector('#overlay').naturalWidth") == 7
    if SHOTS:
        time.sleep(1.8)
        page.driver.save_screenshot(str(Path(SHOTS) / f"playground-{width}.png"))
