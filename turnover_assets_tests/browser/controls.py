"""The controls of a page as a browser has them, each with a name by which a test knows what it is to do.

What belongs here: finding and naming controls. What does not: what each does (links.py, lists.py, forms.py).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from playwright.sync_api import Locator, Page

from turnover_assets_tests.browser.sites import Site

# A control is called by where it stands, where that matters, its role, and what it names: a link by the page
# that it leads to and the parameters that it gives, a field by its own name, anything else by its words.
FINDING = """
mark => {
  const tag = each => each.tagName.toLowerCase();
  const place = each => {
    const found = each.closest("header, footer, thead, svg, nav.pages");
    if (!found) return each.closest("main") ? "" : "page ";
    const names = { header: "top", footer: "footer", thead: "head", svg: "map", nav: "pages" };
    return names[tag(found.closest("header") || found)] + " ";
  };
  const roles = { a: "link", summary: "summary", button: "button", select: "select" };
  const role = each => roles[tag(each)] || each.type || "stop";
  const leads = each => {
    const href = each.getAttribute("href");
    if (href === "" || href.startsWith("#")) return href || "here";
    const to = new URL(href, location.href);
    return [to.pathname, ...to.searchParams.keys()].join(" ");
  };
  const named = each => {
    if (tag(each) === "a") return leads(each);
    if (each.name) return each.name + (each.type === "radio" ? " " + each.value : "");
    if (each.parentElement.classList.contains("why")) return "why";
    if (role(each) === "stop") return each.classList[0];
    return each.textContent.trim().replace(/\\d[\\d.,]*/g, "N").replace(/\\s+/g, " ");
  };
  const seen = each => { const box = each.getBoundingClientRect(); return box.width > 0 && box.height > 0; };
  const wanted = "a[href], button, summary, select, textarea, input:not([type=hidden]), [tabindex='0']";
  const found = {};
  for (const each of document.querySelectorAll(wanted)) {
    if (!seen(each)) continue;
    const name = place(each) + role(each) + " " + named(each);
    if (!(name in found) && name === mark) {
      document.querySelectorAll("[data-marked]").forEach(other => other.removeAttribute("data-marked"));
      each.setAttribute("data-marked", "");
    }
    found[name] = (found[name] || 0) + 1;
  }
  return Object.keys(found);
}
"""
SHARED = ("top ", "page ", "footer ")  # of controls that all pages have
UNFOLD = "document.querySelectorAll('details').forEach(each => { each.open = true })"


@dataclass(frozen=True)
class Use:
    """A control of a page that is about to be used."""

    site: Site
    page: Page
    control: Locator
    name: str

    @property
    def target(self) -> str:
        """Where a link leads."""
        return str(self.control.evaluate("each => new URL(each.getAttribute('href'), location.href).href"))

    @property
    def heading(self) -> str:
        """What the page calls itself."""
        return self.page.locator("h1").inner_text()


Exercise = Callable[[Use], None]


def controls(page: Page) -> list[str]:
    """The names of all controls of a page, those of folded parts and of the other question among them."""
    page.evaluate(UNFOLD)
    found: list[str] = page.evaluate(FINDING, "")
    if "radio what new" in found:
        page.locator("input[value=new]").check()
        found += page.evaluate(FINDING, "")
    return list(dict.fromkeys(found))


def column(page: Page, position: int, rows: str = "#list tbody tr:visible") -> list[str]:
    """The texts of a column of a table, row by row."""
    return page.locator(f"{rows} > :nth-child({position + 1})").all_inner_texts()


@dataclass
class Exercises:
    """What is to be done with each control, and which were used."""

    known: dict[str, Exercise] = field(default_factory=dict)
    together: set[Exercise] = field(default_factory=set)
    used: set[str] = field(default_factory=set)

    def of(self, *names: str) -> Callable[[Exercise], Exercise]:
        """Say what is done with each of some controls."""

        def add(exercise: Exercise) -> Exercise:
            assert not self.known.keys() & {*names}
            self.known.update(dict.fromkeys(names, exercise))
            return exercise

        return add

    def of_all(self, *names: str) -> Callable[[Exercise], Exercise]:
        """Say what is done with some controls that are used together, once on a page."""

        def add(exercise: Exercise) -> Exercise:
            self.together.add(exercise)
            return self.of(*names)(exercise)

        return add

    def use_all(self, site: Site, page: Page, addresses: Iterable[str]) -> list[str]:
        """Use every control of some pages as a reader finds them; those that nothing is known of.

        What all pages have above and below is used on the first.
        """
        unknown: list[str] = []
        for number, address in enumerate(addresses):
            page.goto(site.address + address)
            done: set[Exercise] = set()
            for name in controls(page):
                if number and name.startswith(SHARED):
                    continue
                self.used.add(name)
                exercise = self.known.get(name)
                if exercise is None:
                    unknown.append(f"{name} at {address}")
                elif exercise not in done & self.together:
                    done.add(exercise)
                    exercise(_found_again(site, page, address, name))
        return unknown


def _found_again(site: Site, page: Page, address: str, name: str) -> Use:
    """A control of a page that nothing was done on yet."""
    page.goto(site.address + address)
    if not name.startswith("summary"):
        page.evaluate(UNFOLD)
    page.evaluate(FINDING, name)
    return Use(site, page, page.locator("[data-marked]"), name)


EXERCISES = Exercises()
