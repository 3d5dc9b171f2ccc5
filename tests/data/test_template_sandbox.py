# SPDX-License-Identifier: Apache-2.0
"""The sandbox of chat templates: what it writes, what it stops and what it keeps out of reach."""

import time

import pytest

from t5tasks.data import template_sandbox


def run(source, **values):
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    return template_sandbox.rendered(template_sandbox.compiled(source), {"messages": messages} | values)


@pytest.mark.parametrize(("source", "text"), [
    ("{% for m in messages %}\n  {% if loop.first %}{% continue %}{% endif %}\n{{ m.role }}\n{% endfor %}",
     "assistant\n"),
    ("{{ messages | tojson }}", '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]'),
    ("{{ {'ä': '<&>'} | tojson(indent=1) }}", '{\n "ä": "<&>"\n}'),
    ("{% set n = namespace(a=1) %}{% for m in messages %}{% set n.a = n.a + 1 %}{% endfor %}{{ n.a }}", "3"),
    ("{{ messages | map(attribute='role') | join('/') }}", "user/assistant"),
    ("{% macro f(x, y='b') %}[{{ x }}{{ y }}]{% endmacro %}{{ f('a') ~ f(1, 2) }}", "[ab][12]"),
    ("{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}{% set a, b = 1, 2 %}{{ a + b }}", "a13"),
    ("{{ messages[::-1][0].role }} {{ messages[1:] | length }} {{ 7 % 4 }} {{ 2 ** 3 }} {{ '-' * 3 }}",
     "assistant 1 3 8 ---"),
    ("{{ '%s-%05d' % ('a', 3) }} {{ '{:>3}|{}'.format('a', 1) }} {{ 'abc'.replace('b', 'xx') }}",
     "a-00003   a|1 axxc"),
    ("{{ tools is none }} {{ other is defined }} {{ other }}{{ 'a' in 'cab' }} {{ [1, (2, 3)] }}",
     "True False True [1, (2, 3)]"),
    ("{% filter upper %}x{% endfilter %}{{ '  y ' | trim }}{{ 'a\nb' | indent(2) }}{{ dict(a=1).a }}", "Xya\n  b1"),
    ("{% for i in range(3) if i != 1 %}{{ loop.index0 }}{{ i }} {% endfor %}", "00 12 "),
    ("{{ strftime_now('%Y') | int > 2000 }}", "True")])
def test_the_sandbox_writes_what_jinja_writes(source, text):
    assert run(source, tools=None) == text


def test_a_generation_block_is_marked_only_when_asked():
    template = template_sandbox.compiled("a{% generation %}b{% endgeneration %}c")
    assert template_sandbox.rendered(template, {}) == "abc"
    assert template_sandbox.rendered(template, {}, ("<", ">")) == "a<b>c"


def grown(first, step):
    """A template that takes a step 99 times and writes where it got to."""
    return (f"{{% set n = namespace(x={first}) %}}{{% for i in range(99) %}}{{% set n.x = {step} %}}{{% endfor %}}"
            "{{ n.x }}")


ENDLESS = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "loops over a list": "{% set r = range(99999) | list %}{% for i in r %}{% for j in r %}x{% endfor %}{% endfor %}",
    "loops that skip": "{% for i in range(99999) %}{% for j in range(99999) if false %}{% endfor %}{% endfor %}",
    "a macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a recursive loop": "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "a long text": "{{ 'a' * 10 ** 10 }}",
    "a large number": "{{ (10 ** 1000) ** 1000 }}",
    "a text that doubles": grown("'ab'", "n.x + n.x"),
    "another": grown("'ab'", "n.x ~ n.x"),
    "a list that doubles": grown("1", "[n.x, n.x]"),
    "replace": grown("'ab'", "n.x | replace('b', n.x)"),
    "a method": grown("'ab'", "n.x.replace('b', n.x)"),
    "join": "{{ range(99999) | list | join('a' * 100000) }}",
    "many of one": "{{ (['a' * 1000] * 100000) | join }}",
    "center": "{{ 'x' | center(10 ** 10) }}",
    "mapped": "{{ ['x'] | map('center', 10 ** 10) | list }}",
    "ljust": "{{ 'x'.ljust(10 ** 10) }}",
    "bytes": "{{ 'x'.encode().ljust(10 ** 10) }}",
    "to_bytes": "{{ (1).to_bytes(10 ** 10, 'big') }}",
    "format": "{{ '{:10000000000}'.format(1) }}",
    "format of a width": "{{ '{:{}}'.format(1, 10 ** 10) }}",
    "percent": "{{ '%10000000000d' % 1 }}",
    "percent of a width": "{{ '%*d' % (10 ** 10, 1) }}",
    "indent": "{{ 'a' | indent(10 ** 10, true) }}",
    "tojson": "{{ messages | tojson(indent=10 ** 10) }}",
    "slice": "{{ 'a b' | slice(10 ** 10) | list }}",
    "batch": "{{ messages | batch(10 ** 10, 'x') | list }}",
    "translate": "{{ ('a' * 10000).translate({97: 'b' * 100000}) }}",
    "expandtabs": "{{ 'a\tb'.expandtabs(10 ** 10) }}",
    "output": "{% set x = 'a' * 100000 %}{% set y %}{% for i in range(99999) %}{{ x }}{% endfor %}{% endset %}",
    "a long loop body": "{% for i in range(99999) %}{% for j in range(9) %}" + "a" * 10000 + "{% endfor %}{% endfor %}",
    "range": "{% for i in range(10 ** 9) %}{% endfor %}",
}


@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS)
def test_what_would_not_end_or_fill_memory_is_stopped(source):
    start = time.thread_time()
    with pytest.raises(ValueError, match="too long|too big|recursion|bits") as caught:
        run(source)
    assert "\n" not in str(caught.value)
    assert time.thread_time() - start < template_sandbox.SECONDS + 5


@pytest.mark.parametrize("source", [
    "{{ ''.__class__.__mro__ }}", "{{ cycler.__init__.__globals__ }}", "{{ messages.append(1) }}",
    "{{ messages[0].update(role='x') }}", "{{ namespace(__class__=1) }}",
    "{% set n = namespace() %}{% set n.__class__ = 1 %}", "{{ (messages | attr('__class__')).__name__ }}",
    "{% include 'a' %}", "{% import 'os' as os %}", "{% extends 'a' %}", "{{ lipsum() }}",
    "{{ '{0.__class__.__mro__}'.format(1).x.y }}", "{{ raise_exception('no\nway') }}", "{{ 1 / 0 }}", "{{ nothing.x }}",
    "{{ messages[0].content + 1 }}"])
def test_there_is_no_way_out_and_errors_are_one_line(source):
    with pytest.raises(ValueError, match="cannot write this dialogue") as caught:
        run(source)
    assert "\n" not in str(caught.value)


def test_private_attributes_are_undefined():
    assert run("{{ ''.__class__ }}{{ messages | attr('__class__') }}{{ '{0.__class__}'.format(1) }}") == ""


@pytest.mark.parametrize("source", ["{% if %}", "{{ a", "{% for x in y %}", "\n{% endfor %}", "{{ x | nofilter }}",
                                    "{{ " + "(" * 5000 + ")" * 5000 + " }}", "x" * 1_000_001])
def test_what_is_no_template_is_refused_in_one_line(source):
    with pytest.raises(ValueError, match="chat template (cannot be read|has 1000001 characters)") as caught:
        template_sandbox.compiled(source)
    assert "\n" not in str(caught.value)
