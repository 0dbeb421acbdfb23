import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaherd.core.errors import UserError
from llamaherd.data.documents import Document, Tally
from llamaherd.data.filters import FilterConfig, clean, filtered, filters_of, host_of, is_blocked, read_hosts, repetition


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("  a\r\nb\rc\n", "a\nb\nc"),
        ("page one\x0cpage two", "page one\npage two"),
        ("\ufeffzero\x00width\x07", "zerowidth"),
        ("tab\tstays", "tab\tstays"),
        ("cafe\u0301", "café"),
        ("\x1b[31m", "[31m"),
    ],
)
def test_clean(raw, cleaned):
    assert clean(raw) == cleaned


@given(st.text(st.characters()))
def test_clean_text_is_clean(text):
    cleaned = clean(text)
    assert clean(cleaned) == cleaned


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://People.Example/anna?x=1", "people.example"),
        ("http://user@people.example:8080/a", "people.example"),
        ("people.example/anna", "people.example"),
        ("//people.example.", "people.example"),
        ("http:\\\\people.example\\x", "people.example"),
        ("http:people.example/x", "people.example"),
        ("http:/people.example/x", "people.example"),
        ("\x01 ht\ttp://people.example/x", "people.example"),
        ("people.example/a//b", "people.example"),
        ("mailto:anna@people.example", "people.example"),
        ("localhost:8080/x", "localhost"),
        ("http://[::1]:80/", "::1"),
        ("http://people%2Eexample/", "people.example"),
        ("http://%50eople%e3%80%82example%2e/", "people.example"),
        ("http://people.example%2Fx/", None),
        ("http://people%252Eexample/", None),
        ("http://people\u3002example/", "people.example"),
        ("http://people\uff0eexample\uff0e/", "people.example"),
        ("http://www.people\uff61example/", "www.people.example"),
        ("http://\uff50eople.example", "people.example"),
        ("http://M\u00dcNCHEN.example/", "xn--mnchen-3ya.example"),
        ("http://XN--MNCHEN-3YA.example/", "xn--mnchen-3ya.example"),
        (f"http://{'A' * 70}.m\u00fcnchen.example", f"{'a' * 70}.xn--mnchen-3ya.example"),
        ("http://a..people.example", "a..people.example"),
        ("http://.../", None),
        ("http://[broken", None),
        ("https:///no-host", None),
    ],
)
def test_host_of(url, host):
    assert host_of(url) == host


def test_subdomains_are_blocked_and_lookalikes_are_not():
    blocked = frozenset({"people.example"})
    assert is_blocked("people.example", blocked)
    assert is_blocked("www.deep.people.example", blocked)
    assert not is_blocked("nicepeople.example", blocked)
    assert not is_blocked("people.example.org", blocked)
    assert not is_blocked("example", blocked)


def test_a_host_is_blocked_in_every_spelling():
    for listed, url in (("münchen.example", "http://xn--mnchen-3ya.example/"), ("XN--MNCHEN-3YA.example", "http://münchen。example/")):
        assert filters_of(FilterConfig(blocked_hosts=(listed,)))["blocked_host"](Document("x", "web", url))


def test_repetition_of_word_triples():
    # a b c / b c a / c a b / a b c: one of four stood before.
    assert repetition("a b c A B C") == 0.25
    assert repetition("spam " * 12) == 0.9
    assert repetition("two words") == 0.0


def test_block_list_file(tmp_path):
    path = tmp_path / "hosts.txt"
    path.write_text("# personal data\nPeople.example   # phone book\n\nhttps://who.example/\n")
    assert read_hosts(path) == ["people.example", "who.example"]
    path.write_text("fine.example\nnot a host\n")
    with pytest.raises(UserError, match="line 2: 'not a host'"):
        read_hosts(path)
    with pytest.raises(UserError, match="blocked_hosts: 'http://'"):
        filters_of(FilterConfig(blocked_hosts=("http://",)))
    with pytest.raises(UserError, match="block list"):
        read_hosts(tmp_path / "absent.txt")


def test_each_filter_counts_by_source(tmp_path):
    config = FilterConfig(blocked_hosts=("people.example",), min_characters=4, max_characters=60)
    documents = [
        Document("A good text\x00.", "web", "https://fine.example"),
        Document(" \n\x00 ", "web"),
        Document("Anna: 555 0199", "phone", "http://www.people.example/a"),
        Document("Where is this?", "web", "http://[broken"),
        Document("Hm.", "web"),
        Document("x" * 61, "books"),
        Document("na " * 15, "songs"),
        Document("caf\ufffd\ufffd \ufffd", "web"),
        Document("I hate you all, you idiots.", "forum"),
    ]
    tally = Tally(filters_of(config))
    kept = [document.text for document in filtered(documents, filters_of(config), tally)]
    assert kept == ["A good text.", "I hate you all, you idiots."]  # toxic text stays, on purpose
    assert tally.to_dict() == {
        "read": {"books": 1, "forum": 1, "phone": 1, "songs": 1, "web": 5},
        "cleaned": {"songs": 1, "web": 2},
        "dropped": {
            "empty": {"web": 1}, "unreadable_url": {"web": 1}, "blocked_host": {"phone": 1}, "too_short": {"web": 1},
            "too_long": {"books": 1}, "garbled": {"web": 1}, "repetitive": {"songs": 1},
        },
    }  # fmt: skip
    assert tally.kept == len(kept)


def test_length_is_not_limited_by_default():
    filters = filters_of(FilterConfig())
    long = " ".join(map(str, range(100_000)))
    assert list(filtered([Document(long, "books")], filters, Tally())) == [Document(long, "books")]
