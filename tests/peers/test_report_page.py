"""The report in a real browser: it draws its plots, works by clicks and keys, and asks nobody for anything."""

import importlib.util
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from beamside.monitor.report import write_report
from beamside.project.project import Project

pytestmark = pytest.mark.peer

MADE_UP = Path(__file__).parents[1] / "monitor" / "report_project.py"

OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--enable-logging=stderr",
    "--window-size=1300,900",
    "--virtual-time-budget=4000",
]

PROBE = """
const said = [];
const tell = (name, value) => said.push(name + '=' + value);
addEventListener('load', () => {
  const box = document.getElementById('lightbox');
  const cards = () => [...document.querySelectorAll('.card')].filter((card) => !card.hidden);
  const first = cards()[0];
  first.click();
  tell('lightbox', box.open && box.querySelector('h2').textContent === first.querySelector('h3').textContent);
  tell('lightbox-pictures', box.querySelectorAll('img').length);
  const before = box.querySelector('h2').textContent;
  box.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight', bubbles: true }));
  tell('arrow', box.querySelector('h2').textContent !== before);
  box.close();
  const state = document.getElementById('gallery-state');
  state.value = 'rf';
  state.dispatchEvent(new Event('input'));
  tell('bad-only', cards().length === document.querySelectorAll('.card.failed, .card.rejected').length && cards().length > 0);
  state.value = '';
  const sort = document.getElementById('gallery-sort');
  sort.value = [...sort.options].find((option) => option.textContent.startsWith('Total motion')).value;
  sort.dispatchEvent(new Event('input'));
  const total = (card) => Number((card.textContent.match(/Total motion\\s*([\\d.]+) Å/) || [0, -1])[1]);
  const totals = cards().map(total);
  tell('sorted', totals.every((value, index) => !index || value <= totals[index - 1]) && totals[0] > 0);
  const problem = document.querySelector('#problems .items .name');
  problem.click();
  tell('problem', box.open && problem.textContent.endsWith(box.querySelector('h2').textContent));
  box.close();
  const text = document.getElementById('gallery-text');
  text.value = 'img src';
  text.dispatchEvent(new Event('input'));
  tell('found', cards().length);
  requestAnimationFrame(() => setTimeout(() => {
    const chart = document.querySelector('[data-key=progress]');
    const svg = chart.querySelector('svg');
    const ticks = () => [...svg.querySelectorAll('text')].map((each) => each.textContent).join();
    const place = svg.getBoundingClientRect();
    const at = (kind, x, y) => svg.dispatchEvent(new PointerEvent(kind, { clientX: place.left + x, clientY: place.top + y,
      pointerId: 1, pointerType: 'mouse', bubbles: true }));
    const whole = ticks();
    svg.setPointerCapture = () => {};
    at('pointermove', place.width / 2, 90);
    tell('hover', /Import: \\d+ files/.test(document.getElementById('tip').textContent));
    at('pointerdown', 200, 60); at('pointermove', 500, 150); at('pointerup', 500, 150);
    tell('zoomed', ticks() !== whole);
    svg.dispatchEvent(new MouseEvent('dblclick'));
    tell('reset', ticks() === whole);
    const curves = () => chart.querySelectorAll('.curve').length;
    const all = curves();
    chart.querySelector('.legend button').click();
    tell('legend', curves() === all - 1);
    const loads = performance.getEntriesByType('resource').filter((each) => !each.name.startsWith('data:'));
    tell('offline', loads.length === 0);
    document.title = 'PROBE ' + said.join(' ') + ' END';
  }, 300));
});
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    spec = importlib.util.spec_from_file_location("report_project", MADE_UP)
    assert spec is not None
    assert spec.loader is not None
    made_up = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made_up)
    made: Project = made_up.make_session(tmp_path_factory.mktemp("lab") / "run 1")
    return made


@pytest.fixture
def browse(tmp_path: Path, require_program: Callable[[str], str]) -> Callable[[Path], tuple[str, str]]:
    """A function that opens a page in Chromium and returns the document as it then is, and what the browser said."""

    def open_page(page: Path) -> tuple[str, str]:
        command = [require_program("chromium"), *OPTIONS, f"--user-data-dir={tmp_path / 'profile'}"]
        done = subprocess.run(
            [*command, "--dump-dom", page.as_uri()],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout, done.stderr

    return open_page


def test_the_page_draws_its_plots_without_errors(project: Project, browse: Callable[[Path], tuple[str, str]]) -> None:
    document, said = browse(write_report(project))
    assert "CONSOLE" not in said, said
    assert document.count('class="dots') >= 2 * 15
    assert document.count('class="bar"') > 15 * 5
    assert document.count('class="curve"') == 5 + 5 + 1
    drawn = re.findall(r"<(?:path|rect|line|text|circle) [^>]*>", document)
    assert len(drawn) > 500
    assert not [each for each in drawn if "NaN" in each or "undefined" in each or "Infinity" in each]


def test_clicks_keys_filters_and_zoom_work_without_any_request(
    project: Project, browse: Callable[[Path], tuple[str, str]], tmp_path: Path
) -> None:
    html = write_report(project, tmp_path / "probed.html").read_text(encoding="utf-8")
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    (tmp_path / "probed.html").write_text(html.replace("</body>", f"<script>{PROBE}</script></body>"), encoding="utf-8")
    document, said = browse(tmp_path / "probed.html")
    assert "CONSOLE" not in said, said
    probe = re.search(r"PROBE (.*?) END", document[: document.index("</title>")])
    assert probe is not None, document[:2000]
    found = dict(pair.split("=") for pair in probe.group(1).split())
    wrong = {name for name, value in found.items() if value == "false"}
    assert not wrong
    assert {"offline", "zoomed", "legend", "hover", "sorted", "problem"} <= set(found)
    assert int(found["lightbox-pictures"]) >= 1
    assert found["found"] == "1"


def test_a_foreign_script_does_not_run(
    project: Project, browse: Callable[[Path], tuple[str, str]], tmp_path: Path
) -> None:
    page = write_report(project, tmp_path / "attacked.html")
    html = page.read_text(encoding="utf-8")
    page.write_text(html.replace("</body>", "<script>document.title = 'owned'</script></body>"), encoding="utf-8")
    document, said = browse(page)
    assert "<title>owned" not in document
    assert "Content Security Policy" in said


def test_a_session_without_files_has_a_page_that_works(
    browse: Callable[[Path], tuple[str, str]], tmp_path: Path
) -> None:
    from beamside.project.project import ProjectWriter

    with ProjectWriter(Project(tmp_path / "lab" / "empty")) as writer:
        document, said = browse(write_report(writer.project))
    assert "CONSOLE" not in said, said
    assert "No file has been taken in yet." in document
