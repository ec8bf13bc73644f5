"""Reads pages as a browser without JavaScript: what they say, and their forms."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"br", "hr", "img", "input", "link", "meta"}


@dataclass
class Tag:
    """An element with what is in it."""

    name: str
    attributes: dict[str, str]
    parent: Tag | None = None
    children: list[Tag | str] = field(default_factory=list)

    def __iter__(self):
        for child in self.children:
            if isinstance(child, Tag):
                yield child
                yield from child

    def all(self, name="", **attributes):
        """The elements of this name with these attributes; ``class_`` has to be one of several."""
        wanted_class = attributes.pop("class_", None)
        return [
            tag
            for tag in self
            if name in ("", tag.name)
            and (wanted_class is None or wanted_class in tag.attributes.get("class", "").split())
            and all(tag.attributes.get(key) == value for key, value in attributes.items())
        ]

    def one(self, name="", **attributes):
        [found] = self.all(name, **attributes)
        return found

    @property
    def text(self):
        parts = [child if isinstance(child, str) else child.text for child in self.children]
        return re.sub(r"\s+", " ", " ".join(parts)).strip()


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.root = self.at = Tag("root", {})

    def handle_starttag(self, name, attributes):
        tag = Tag(name, {key: value or "" for key, value in attributes}, self.at)
        self.at.children.append(tag)
        if name not in VOID:
            self.at = tag

    def handle_startendtag(self, name, attributes):
        self.at.children.append(Tag(name, {key: value or "" for key, value in attributes}, self.at))

    def handle_endtag(self, name):
        assert self.at.name == name, f"</{name}> closes <{self.at.name}>"
        self.at = self.at.parent

    def handle_data(self, data):
        self.at.children.append(data)


def read(html: str) -> Tag:
    """The document; fails where an element is not closed."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.at is reader.root, f"<{reader.at.name}> is not closed"
    return reader.root


def fields_of(form: Tag) -> dict[str, str]:
    """What a browser sends for a form as it is."""
    fields = {}
    for tag in form:
        if tag.name == "input" and "name" in tag.attributes:
            fields[tag.attributes["name"]] = tag.attributes.get("value", "")
        elif tag.name == "textarea":
            fields[tag.attributes["name"]] = "".join(tag.children).removeprefix("\n")
        elif tag.name == "select":
            options = tag.all("option")
            chosen = [each for each in options if "selected" in each.attributes] or options[:1]
            fields[tag.attributes["name"]] = chosen[0].attributes["value"] if chosen else ""
    return fields


def form_of(page: Tag, action: str) -> Tag:
    return page.one("form", action=action)
