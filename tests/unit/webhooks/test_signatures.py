"""Signatures: each server's own scheme, over the raw body."""

import base64
import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.errors import SignatureInvalid, UnknownName
from rollout.webhooks import PROVIDERS, provider

BODY = b'{"ref": "refs/heads/main",  "n": 1}'
SECRET = "It's a Secret to Everybody"
KEY = bytes(range(32))
SIGNING_TOKEN = "whsec_" + base64.b64encode(KEY).decode()
OTHERS = ("another", "and another")


def hexed(body=BODY, secret=SECRET, algorithm="sha256"):
    """The body's signature in hex digits."""
    return hmac.new(secret.encode(), body, algorithm).hexdigest()


def standard(body=BODY, key=KEY, name="msg_1", time="1764000000"):
    """The headers of a GitLab delivery that is signed."""
    signed = base64.b64encode(
        hmac.new(key, f"{name}.{time}.".encode() + body, hashlib.sha256).digest()
    ).decode()
    return {"webhook-id": name, "webhook-timestamp": time, "webhook-signature": f"v1,{signed}"}


SCHEMES = {
    "github": lambda body, secret: {"X-Hub-Signature-256": f"sha256={hexed(body, secret)}"},
    "gitea": lambda body, secret: {"X-Gitea-Signature": hexed(body, secret)},
    "bitbucket": lambda body, secret: {"X-Hub-Signature": f"sha256={hexed(body, secret)}"},
    "gitlab": lambda body, secret: standard(body, secret.encode()),
}


@pytest.fixture(params=SCHEMES)
def name(request):
    """Each server in turn."""
    return request.param


def refused(name, headers, body=BODY, secrets=(SECRET,)):
    """The webhook is refused as not signed."""
    try:
        PROVIDERS[name].verify(headers, body, secrets)
    except SignatureInvalid:
        return True
    return False


def test_githubs_published_example_verifies():
    """The example of GitHub's documentation is taken."""
    headers = {
        "X-Hub-Signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    }
    assert not refused("github", headers, b"Hello, World!")


def test_a_right_signature_is_taken(name):
    """A body signed with the secret is taken; header names in any case."""
    headers = SCHEMES[name](BODY, SECRET)
    assert not refused(name, headers)
    assert not refused(name, [(key.upper(), value) for key, value in headers.items()])


def test_each_of_several_secrets_is_taken(name):
    """While secrets are exchanged, the old and the new one are both good, and no other."""
    for secret in OTHERS:
        assert not refused(name, SCHEMES[name](BODY, secret), secrets=OTHERS)
    assert refused(name, SCHEMES[name](BODY, SECRET), secrets=OTHERS)


def test_nothing_is_taken_without_a_secret(name):
    """With no secret, or an empty one, everything is refused, what is signed with nothing too."""
    for secrets in ((), ("",)):
        assert refused(name, SCHEMES[name](BODY, ""), secrets=secrets)


def test_a_missing_empty_or_doubled_signature_is_refused(name):
    """The signature is there exactly once, or the webhook is refused."""
    headers = SCHEMES[name](BODY, SECRET)
    for key in headers:
        assert refused(name, {other: value for other, value in headers.items() if other != key})
        assert refused(name, {**headers, key: ""})
        assert refused(name, [*headers.items(), (key.lower(), headers[key])])
        assert refused(name, [*headers.items(), (key, "")])


def test_the_raw_body_is_what_is_signed(name):
    """The same JSON in other bytes is refused."""
    assert refused(name, SCHEMES[name](json.dumps(json.loads(BODY)).encode(), SECRET))


@given(place=st.integers(0, len(BODY) * 8 - 1), which=st.sampled_from(sorted(SCHEMES)))
def test_any_flipped_bit_is_refused(place, which):
    """Not one bit of the body can be changed."""
    changed = bytearray(BODY)
    changed[place // 8] ^= 1 << place % 8
    assert refused(which, SCHEMES[which](BODY, SECRET), bytes(changed))


@given(st.text(max_size=100), st.sampled_from(sorted(SCHEMES)))
def test_any_text_as_signature_is_an_answer(text, which):
    """Whatever stands in the headers, the answer is a refusal and never another error."""
    headers = dict.fromkeys(SCHEMES[which](BODY, SECRET), text)
    assert refused(which, headers)
    assert refused(which, dict.fromkeys(headers, f"sha256={text}"))
    assert refused(which, dict.fromkeys(headers, f"v1,{text}"))


@pytest.mark.parametrize("which", ["github", "bitbucket"])
def test_sha1_is_not_a_signature(which):
    """A SHA-1 signature is ignored, alone or beside nothing else."""
    signature = f"sha1={hexed(algorithm='sha1')}"
    assert refused(which, {"X-Hub-Signature": signature})
    assert refused(which, {"X-Hub-Signature-256": signature})


def test_a_sha1_header_beside_the_good_one_does_not_matter():
    """GitHub sends both; only the one over SHA-256 counts."""
    good = SCHEMES["github"](BODY, SECRET)
    assert not refused("github", {**good, "X-Hub-Signature": "sha1=00"})


def test_gitlabs_signing_token_is_the_decoded_key():
    """A whsec_ secret signs with the bytes that it encodes."""
    assert not refused("gitlab", standard(), secrets=(SIGNING_TOKEN,))
    assert refused("gitlab", standard(key=SIGNING_TOKEN.encode()), secrets=(SIGNING_TOKEN,))


def test_gitlab_may_send_several_signatures():
    """One good signature of several is enough: so GitLab exchanges its own."""
    headers = standard()
    headers["webhook-signature"] = f"v1,AAAA v2,xyz {headers['webhook-signature']}"
    assert not refused("gitlab", headers, secrets=(SIGNING_TOKEN,))


def test_gitlabs_id_and_time_are_signed():
    """Neither the delivery's id nor its time can be changed."""
    for key in ("webhook-id", "webhook-timestamp"):
        assert refused("gitlab", {**standard(), key: "2"}, secrets=(SIGNING_TOKEN,))


def test_gitlabs_plain_token_is_taken_for_a_secret_of_that_kind_only():
    """The secret token of older GitLabs is taken; a signing token that is sent in the open is not."""
    assert not refused("gitlab", {"X-Gitlab-Token": SECRET})
    assert refused("gitlab", {"X-Gitlab-Token": SECRET + "x"})
    assert refused("gitlab", [("X-Gitlab-Token", SECRET), ("X-Gitlab-Token", SECRET)])
    assert refused("gitlab", {"X-Gitlab-Token": SIGNING_TOKEN}, secrets=(SIGNING_TOKEN,))


def test_a_wrong_signature_is_not_saved_by_a_token():
    """When GitLab signs, the signature alone counts."""
    headers = {**standard(BODY + b" ", SECRET.encode()), "X-Gitlab-Token": SECRET}
    assert refused("gitlab", headers)


def test_every_secret_is_compared_in_constant_time(name, monkeypatch):
    """Each by `hmac.compare_digest`, also after one has fitted: time tells neither how much of a guess is right nor which secret it is."""
    compared, compare = [], hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda *both: (compared.append(both), compare(*both))[1])
    secrets = (SECRET, *OTHERS)
    for headers in (SCHEMES[name](BODY, SECRET), SCHEMES[name](BODY, "a guess")):
        compared.clear()
        refused(name, headers, secrets=secrets)
        assert len(compared) == len(secrets)
    compared.clear()
    refused("gitlab", {"X-Gitlab-Token": SECRET}, secrets=secrets)
    assert [ours.decode() for ours, _ in compared] == list(secrets)


def test_an_unknown_server_is_refused_by_name():
    """A provider that is not in the table is refused with the known ones."""
    with pytest.raises(UnknownName, match="bitbucket, gitea, github, gitlab"):
        provider("svn")
