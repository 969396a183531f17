"""Addresses that cannot work, told without telling them."""

import logging

import pytest

from rollout.errors import DeliveryFailed
from rollout.notify import AppriseNotifier

pytestmark = pytest.mark.filterwarnings(
    "ignore:'imghdr' is deprecated"
)  # one of Apprise's plugins imports it
SECRET = "xoxb-hunter2"


@pytest.mark.parametrize("url", [f"nothing://{SECRET}", f"tgram://{SECRET}", f"{SECRET}"])
def test_an_address_that_apprise_does_not_know_is_told_by_its_number(url, caplog, capsys):
    """The error names number and kind; neither it nor any log nor any output has the address."""
    with caplog.at_level(logging.DEBUG), pytest.raises(DeliveryFailed) as caught:
        AppriseNotifier().send([url], "title", "body")
    assert "no. 1" in str(caught.value)
    assert "not an address that Apprise knows" in str(caught.value)
    told = f"{caplog.text} {capsys.readouterr()} {caught.value!r} {caught.value.remedy}"
    assert "xoxb" not in told


def test_no_address_is_no_delivery():
    """With no address there is nothing to do and nothing to fail."""
    AppriseNotifier().send([], "title", "body")


def test_of_how_many_addresses_is_said_also_when_one_is_tried_again():
    """It is one of those that the list has, and not of those that are tried."""
    with pytest.raises(DeliveryFailed, match=r"^1 of 3 addresses in notify\.urls did not take it: no\. 2"):
        AppriseNotifier().send([f"nothing://{number}" for number in "123"], "title", "body", only=[2])
