"""Pages as a browser would read them, and what hostile files put into them, for tests."""

from html.parser import HTMLParser

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'&"


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and the texts in them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and data.strip():
            self.texts.append((self.elements[-1][0], data.strip()))

    @property
    def text(self) -> str:
        return " ".join(text for tag, text in self.texts if tag != "style")

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)

    @property
    def addresses(self) -> list[str]:
        """Everything that names something to load, or to go to."""
        names = {"src", "href", "xlink:href", "action", "data", "poster", "srcset"}
        return [str(value) for _, found in self.elements for name, value in found.items() if name in names]
