"""What has to agree when a version is released."""

import re
from pathlib import Path

import yaml

from pss_razor import __version__

ROOT = Path(__file__).resolve().parents[1]


def test_version_and_date_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    heading = re.search(r"^## (\S+) \((\d{4}-\d\d-\d\d)\)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert heading, "the changelog begins with a version and its date"
    assert citation["version"] == heading[1] == __version__
    assert str(citation["date-released"]) == heading[2]


def test_links_between_documents_lead_somewhere():
    """Files, and headings by the anchors that GitHub makes of them."""
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    links = 0
    for document in documents:
        text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" in target:
                continue
            links += 1
            name, _, anchor = target.partition("#")
            path = (document.parent / name).resolve() if name else document
            assert path.exists(), f"{document.name}: {target}"
            if anchor:
                titles = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
                anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
                assert anchor in anchors, f"{document.name}: {target}"
    assert links > 20
