"""Templates that do not end, or that build more than a row can be, end in one kind of error; good ones are not slowed."""

from __future__ import annotations

import resource
import threading
import time

import pytest

from engine.data import sandbox
from engine.data.chat_template import ChatTemplate
from engine.data.turns import Message
from engine.errors import Exit, FtuiError

GROWING = "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = EXPRESSION %}{% endfor %}{{ ns.s }}"
ASK = [Message("user", "Hi")]


def render(source: str) -> str:
    return ChatTemplate(source, {}).render(ASK)


@pytest.mark.parametrize(
    "source",
    [
        # without end
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) | map('string') %}{% for j in range(99999) %}{% if j > 2 %}{% endif %}{% endfor %}{% endfor %}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{% block b %}{{ self.b() }}{% endblock %}",
        "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        # doubled again and again
        GROWING.replace("EXPRESSION", "ns.s ~ ns.s"),
        GROWING.replace("EXPRESSION", "ns.s + ns.s"),
        GROWING.replace("EXPRESSION", "ns.s * 2"),
        GROWING.replace("EXPRESSION", "[ns.s, ns.s]"),
        GROWING.replace("EXPRESSION", "{'a': ns.s, 'b': ns.s}"),
        GROWING.replace("EXPRESSION", "(ns.s, ns.s)"),
        GROWING.replace("EXPRESSION", "dict(a=ns.s, b=ns.s)"),
        GROWING.replace("EXPRESSION", "[ns.s] | batch(2, ns.s) | list"),
        GROWING.replace("EXPRESSION", "[ns.s, ns.s] | join"),
        GROWING.replace("EXPRESSION", "'%s%s' % (ns.s, ns.s)"),
        GROWING.replace("EXPRESSION", "'{0}{0}'.format(ns.s)"),
        "{% set ns = namespace(s='ab') %}{% for i in range(60) %}"
        "{% set x %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = x %}{% endfor %}",
        "{% set x %}{% for i in range(99999) %}" + "x" * 9999 + "{% endfor %}{% endset %}",
        "{% for i in range(99999) %}" + "x" * 9999 + "{% endfor %}",
        # at once
        "{{ 'a' * 10 ** 10 }}",
        "{{ 10 ** 10 * 'a' }}",
        "{{ [1] * 10 ** 10 }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ 'a'.ljust(10 ** 10) }}",
        "{{ 'a' | center(10 ** 10) }}",
        "{{ 'a\\n' | indent(width=10 ** 10) }}",
        "{{ messages | tojson(indent=10 ** 10) }}",
        "{{ ['center'] | map('center', 10 ** 10) | list }}",
        "{{ [1] | batch(10 ** 10, 'x') | list }}",
        "{{ 1 | round(10 ** 10, 'ceil') }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ '%*d' % (10 ** 10, 1) }}",
        "{{ '%9999999999d' | format(1) }}",
        "{{ '{:>9999999999}'.format(1) }}",
        "{{ '{:{}}'.format('a', 10 ** 10) }}",
        "{{ ('a' * 99999).replace('a', 'b' * 99999) }}",
        "{{ ('a' * 99999) | replace('a', 'b' * 99999) }}",
        "{{ ('a' * 99999).translate({97: 'b' * 99999}) }}",
        "{{ ('a' * 99999).join(range(99999) | map('string')) }}",
        "{{ range(99999) | join('a' * 99999) }}",
        "{{ ([[1] * 999] * 99) | sum(start=[]) }}",
        "{{ lipsum(n=10 ** 9) }}",
    ],
)
def test_what_does_not_end_is_stopped(source: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FtuiError) as caught:
        render(source)
    assert caught.value.code == Exit.MODEL_UNSUPPORTED
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 700 * 1024, "kB"


def test_a_template_longer_than_any_is_refused() -> None:
    with pytest.raises(FtuiError, match="does not compile"):
        render("{{ 'a' }}" * 200_000)


def test_time_is_limited_where_steps_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 0.05)
    with pytest.raises(FtuiError, match="on and on"):
        render("{% set x = 'a' * 9999999 %}{% for i in range(99999) %}{% if 'b' in x %}{% endif %}{% endfor %}")
    assert render("{{ messages[0].content }}") == "Hi", "each rendering has its own time"


def test_time_counts_for_each_thread_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rendering that another thread begins meanwhile, with the same template, changes no limit of this one."""
    monkeypatch.setattr(sandbox, "SECONDS", 0.2)
    environment = sandbox.Environment()
    while time.thread_time() < 0.3:  # so that this thread's clock is ahead of a new one's
        sum(range(10_000))
    environment.start()
    thread = threading.Thread(target=environment.start)
    thread.start()
    thread.join()
    assert len(list(environment.each(range(200)))) == 200


def test_long_rows_are_no_endless_ones() -> None:
    source = (
        "{% set ns = namespace(text='', seen=[]) %}{% for m in messages %}{% set ns.text = ns.text + m.content %}"
        "{% for other in messages %}{% if other is sameas m %}{% break %}{% endif %}{% endfor %}"
        "{% if loop.last or loop.index == loop.length %}{{ ns.text ~ m.content | tojson }}{% endif %}{% endfor %}"
    )
    messages = [Message("user", f"{number} ") for number in range(1000)]
    text = ChatTemplate(source, {}).render(messages)
    assert text == "".join(message.content for message in messages) + '"999 "'
    large = "word " * 4_000_000  # 20 MB
    assert (
        ChatTemplate("<{{ messages[0]['content'] | trim + '|' }}>", {}).render([Message("user", large)])[-6:]
        == "word|>"
    )


def test_operators_and_filters_are_jinjas_own() -> None:
    cases = {
        "{{ 1 + 2 + 3.5 }}": "6.5",
        "{{ 'a' + 'b' + ('c' if x else 'd') }}": "abd",
        "{{ [1] + [2] }}": "[1, 2]",
        "{{ 'a' ~ 1 ~ none ~ x }}": "a1None",
        "{{ ('a', 1) }}{{ {'a': [1]} }}": "('a', 1){'a': [1]}",
        "{% for a, b in {'x': 1, 'y': 2}.items() %}{{ loop.index }}{{ a }}{{ b }}{{ loop.length }}{% endfor %}": "1x122y22",
        "{% for c in 'abc' if c != 'b' %}{{ c }}{{ loop.last }}{% else %}none{% endfor %}": "aFalsecTrue",
        "{% for c in [] %}{% else %}none{% endfor %}": "none",
        "{% for i in range(100) %}{% if loop.last %}{{ i }}{{ loop.length }}{{ loop.previtem }}{% endif %}{% endfor %}": "9910098",
        "{% for i in [1, [2, [3]]] recursive %}{{ loop(i) if i is iterable else i }}{% endfor %}": "123",
        "{{ '%s-%05.1f' % ('a', 2) }}{{ '{:>3}'.format(1) }}{{ '%d' | format(3) }}": "a-002.0  13",
        "{{ ['b', 'a'] | sort | join(', ') }}{{ [1, 2] | sum }}{{ 'x' | indent(2, true) }}": "a, b3  x",
        "{{ 2 ** 10 }}{{ 7 % 4 }}{{ 'ab' * 2 }}{{ 3 * 1.5 }}": "10243abab4.5",
        "{{ [{'a': 1}, {'a': 2}] | map(attribute='a') | list }}": "[1, 2]",
        "{{ '-'.join(['a', 'b']) }}{{ 'aXb'.replace('X', '--') }}{{ 'a'.center(5, '.') }}": "a-ba--b..a..",
        "{% macro m(a, b=2) %}{{ a + b }}{% endmacro %}{{ m(1) }}{{ m(1, b=3) }}": "34",
        "{% macro m() %}<{{ caller('x') }}>{% endmacro %}{% call(y) m() %}{{ y }}{% endcall %}": "<x>",
        "{% set x %}a{{ 1 }}{% endset %}{{ x | upper }}{% filter upper %}b{% endfilter %}": "A1B",
    }
    for source, expected in cases.items():
        assert render(source) == expected, source
