"""docs/http.md names what there is."""

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.support.web import BEARER

PAGE = (Path(__file__).parents[3] / "docs" / "http.md").read_text()


def test_every_address_is_documented(client):
    """Each route, as GET or POST, stands in the documentation."""
    for route in client.app.routes:
        path = route.path.replace("{id:int}", "ID").replace("{sha}", "SHA")
        assert f"`{path}`" in PAGE or re.search(rf"`(GET|POST) {re.escape(path)}`", PAGE), path


def test_every_metric_is_documented(client):
    """Each name that /metrics shows stands in the documentation."""
    client.post("/webhooks/github", body=b"{}")
    page = client.get("/metrics", BEARER).text
    names = {sample.name for family in text_string_to_metric_families(page) for sample in family.samples}
    assert [name for name in names if name not in PAGE and not name.endswith("_created")] == []
