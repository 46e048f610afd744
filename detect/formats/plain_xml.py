"""Elements, attributes and text of an xml file, and nothing else that xml can do.

A document type is refused before anything in it is read: no entity is expanded (a few lines can stand for gigabytes)
and no other file or address is opened.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

__all__ = ["Element", "read_xml"]


def read_xml(path: Path, tag: str) -> Element:
    """The root element of the file, which is a `tag`. ValueError in one line that names the file; OSError."""
    try:
        root = _parse(path.read_bytes())
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise ValueError(f"{path.name}: {error}") from None
    if root.tag != tag:
        raise ValueError(f"{path.name}: the root is <{root.tag[:40]}>, expected <{tag}>")
    return root


def _parse(content: bytes) -> Element:
    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.Parse(content, True)
    return builder.close()


def _refuse_doctype(*_: object) -> None:
    raise ValueError("a document type (<!DOCTYPE), which is not read: it could expand without end or open other files")
