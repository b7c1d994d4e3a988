#!/usr/bin/python3
"""Renders small templates by Python's jinja2 as golden.py sets it up, and writes expressions.json: a list of
{"t": template, "out": text} or {"t": template, "raises": message}. Run from this folder."""
import json

from golden import Raised, environment

VARS = {
    "s": "Hello, World", "e": "", "u": "Straße é ✓", "i": 7, "n": -3, "f": 2.5, "t": True, "z": None, "sp": "  a b\t c \n",
    "l": [3, 1, 2], "w": ["b", "A", "c", "a"], "d": {"b": 1, "a": [1, {"x": None}], "items": "k", "c": "q'\""}, "big": 12345678901234567890,
    "p": [{"n": "x", "v": 2, "g": "B"}, {"n": "y", "v": 1, "g": "a"}, {"n": "z", "g": "b"}], "h": "<a href='x'>A & B</a>",
}

EXPRESSIONS = r"""
1 + 2 * 3 ** 2
2 ** 3 ** 2
-2 ** 2
-2 | abs
7 // 2
-7 // 2
7 % -3
-7 % 3
-7.5 // 2
-7.5 % 2
7 / 2
8 / 2
1 / 0
1 // 0
1.0 / 0
2 ** 100
2 ** -1
9223372036854775807 + 1
big * big
big == 12345678901234567890
-big // 7
-big % 7
1e5
1e16
1.5e-7
100000000000000000000.0
0.1 + 0.2
1_000 + 0x1f + 0b11 + 0o17
true + true
true == 1
1 == 1.0
1 == "1"
"a" == "a"
[1, 2] == (1, 2)
[1, 2] == [1, 2.0]
{"a": 1, "b": 2} == {"b": 2, "a": 1}
z == none
q == q2
q is defined
q + 1
1 + q
"a" + q
"a" ~ q ~ "b"
q.x
q["x"]
q()
s.x
s.x.y
d.x
d.x.y
d.items
d["items"]
d.b
d["nope"] is defined
d.nope is undefined
z.x
z["x"] is defined
l[0]
l[-1]
l[5]
l[5] is defined
l["x"]
l.0
s[0]
s[-1]
s[100] is defined
u[5]
u[4:7]
s[::-1]
s[1:5:2]
l[::-1]
l[1:]
l[:-1]
l[5:]
l[::0]
l["a":]
z[1:]
i[0]
q[1:]
(1, 2)[0]
(1,)
()
(1, 2)
[]
{}
{"a": 1, 2: [1.0, none, true], (1, 2): "x"}
{[]: 1}
[s, "it's", 'q"', "both'\"", "\n\t\\", "é\x00\u200b"]
"\x41\u00e9\n\101\q\\"
'a' 'b'
1 < 2 < 3
1 < 3 < 2
1 < "a"
"a" < "b"
[1, 2] < [1, 3]
q < 1
z < 1
1 in l
5 not in l
"ell" in s
1 in s
"b" in d
1 in q
1 in z
q in s
1 if true
1 if false
1 if false else 2 if false else 3
(1 if false) is defined
not 1 == 2
not q
e or "x"
s and "y"
l or 1
0 or z
"a" * 3
3 * "a"
"a" * -1
[1] * 2
[1] + [2]
(1,) + (2,)
[1] + (2,)
"a" + 1
1 + "a"
"a" - "b"
l + 1
-s
+i
-t
"%s-%d-%5.2f|%-5s|%05d|%x|%r|%%" % ("a", 3, 2.5, "b", 42, 255, "q")
"%s" % s
"%s %s" % (1,)
"%d" % "x"
"%(a)s" % {"a": 1}
"%s" % [1, "a"]
"{} {0}".format(1)
"{} {}".format("a", 2)
"{0}-{x}".format(1, x="y")
"{:>5}|{:<5}|{:^5}|{:05d}|{:,}|{:.2f}|{:x}|{:%}".format("a", "b", "c", 42, 1234567, 2.345, 255, 0.5)
"{!r}".format("a")
"{{}}".format()
s.upper()
s.lower()
u.upper()
s.title()
"they're bill's".title()
s.capitalize()
s.swapcase()
s.split()
s.split(", ")
s.split("l", 1)
sp.split()
sp.split(none, 1)
sp.rsplit(none, 1)
sp.rsplit(" ", 1)
"a,b,,c".split(",")
"".split(",")
"".split()
"a,b,c".rsplit(",", 1)
s.split("")
"a\nb\r\nc\n".splitlines()
"a\nb".splitlines(true)
sp.strip()
sp.lstrip()
sp.rstrip()
"xxaxx".strip("x")
"\x1ca\u00a0\u3000".strip()
s.startswith("Hell")
s.startswith(("X", "H"))
s.startswith(["H"])
s.endswith("d")
s.startswith("ello", 1)
s.find("o")
s.find("o", 5)
u.find("é")
s.rfind("o")
s.index("zz")
s.count("l")
s.replace("l", "L")
s.replace("l", "L", 1)
s.replace("", "-")
s.removeprefix("He")
s.removesuffix("ld")
s.partition(", ")
s.rpartition("l")
s.partition("zz")
",".join(w)
",".join(l)
"a".isdigit()
"12".isdigit()
"aB".isalpha()
"AB".isupper()
"a1".islower()
" ".isspace()
"a1".isalnum()
"x".center(5, "*")
"x".center(4)
"x".ljust(3, "-")
"x".rjust(3)
"-7".zfill(4)
s.nope()
s.__class__
s.__class__.x
s.format
"".join([])
d.keys()
d.values()
d.items()
d.keys() | list
d.items() | list
d.get("b")
d.get("zz")
d.get("zz", 5)
d.get(l)
d.update({"x": 1})
d.pop("b")
d.copy()
d | length
l.append(4)
l.pop()
l.index(2)
l.index(9)
l.count(1)
l.sort()
l.copy()
namespace(a=1).a
namespace(a=1).b is defined
namespace(a=1)["a"]
namespace({"a": 1}, b=2).b
namespace(a=1)
dict(a=1, b=2)
dict([(1, 2), ("a", "b")])
range(3)
range(3) | list
range(5, 0, -2) | list
range(1, 10)[3]
range(10) | length
3 in range(5)
range(200000)
range(1, 2, 0)
joiner(",")()
lipsum is defined
s | length
q | length
i | length
z | length
l | first
[] | first
[] | first is defined
l | last
e | last
l | sort
l | sort(reverse=true)
w | sort
w | sort(case_sensitive=true)
p | sort(attribute="n", reverse=true) | map(attribute="n") | list
p | sort(attribute="v")
[1, "a"] | sort
w | unique | list
w | unique(case_sensitive=true) | list
w | min
l | max
[] | max
p | map(attribute="n") | list
p | map(attribute="n") | join("-")
p | map(attribute="v", default=0) | sum
p | selectattr("v") | map(attribute="n") | list
p | selectattr("v", "defined") | list | length
p | selectattr("v", "equalto", 1) | list
p | selectattr("v", "==", 1) | list | length
p | rejectattr("v", "defined") | list
l | select("odd") | list
l | reject(">", 1) | list
l | select | list
z | select | list
z | map("upper") | list
0 | selectattr("a") | list
5 | map("upper") | list
w | map("upper") | list
w | map("replace", "a", "X") | list
l | map("nope") | list
l | sum
p | sum(attribute="v")
l | join
l | join(", ")
p | join(",", attribute="n")
z | join
s | join("-")
l | reverse | list
s | reverse
l | list
s | list | length
d | list
z | list
i | list
l | batch(2) | list
l | batch(2, "x") | list
l | slice(2) | list
p | groupby("g") | list
p[:2] | groupby("g")
d | dictsort
{"B": 1, "a": 2} | dictsort
{"B": 1, "a": 2} | dictsort(true)
{"b": 1, "a": 2} | dictsort(by="value", reverse=true)
d | items | list
q | items | list
l | items
q | default("x")
z | default("x")
z | default("x", true)
e | d("x", true)
q.a | default("x")
d.zz | default("x")
s | upper
s | lower
s | title
"foo-bar (baz) it's" | title
s | capitalize
sp | trim
"xax" | trim("x")
z | trim
i | trim
q | trim
s | replace("o", "0")
s | replace("o", "0", 1)
i | replace("7", "8")
s | truncate(8)
s | truncate(5, true, "", 0)
"a b c" | wordcount
h | striptags
h | escape
h | e | length
(h | e) ~ "<"
(h | e) + "<"
"<" + (h | e)
"<b>" | safe
("<b>" | safe) + "<i>"
("<b>" | safe) ~ "<i>"
("<b>" | safe).upper() + "<"
h | urlencode
{"a b": "c/d"} | urlencode
s | string
5 | string + "a"
"a\nb\n\nc" | indent
"a\nb\n\nc" | indent(2, true)
"a\nb\n\nc\n" | indent(2, blank=true)
"a\nb" | indent("> ")
"x" | center(5)
"%s=%s" | format("a", 1)
"%(a)s" | format(a=1)
"42" | int
"4.7" | int
" 12 " | int
"12abc" | int
"x" | int(5)
"0x1f" | int(0, 16)
"1f" | int(base=16)
z | int
q | int
4.9 | int
-4.9 | int
"1_000" | int
l | int
"2.5" | float
"x" | float
"x" | float(1.5)
z | float
q | float
"inf" | float
"nan" | float
5 | float
-3 | abs
-3.5 | abs
"a" | abs
2.5 | round
3.5 | round
2.345 | round(2)
2.675 | round(2)
5 | round
2.1 | round(0, "ceil")
2.9 | round(method="floor")
1234 | round(-2)
d | attr("b") is defined
s | attr("upper") is defined
d | tojson
d | tojson(indent=2)
d | tojson(indent=4, sort_keys=true)
d | tojson(separators=(",", ":"))
u | tojson
u | tojson(ensure_ascii=true)
"\x00\x1f\x7f\u2028😀</script>&'\"\\\n\r\t\x08\x0c" | tojson
"\x7f😀é" | tojson(ensure_ascii=true)
[1.0, 1e16, 1e-7, -0.0, 1e22, 123456789012345680.0] | tojson
big | tojson
{1: 2, none: 3, true: 4, 1.5: 5} | tojson
{(1, 2): 3} | tojson
(1, 2) | tojson
[[], {}, [[]]] | tojson(indent=1)
q | tojson
d.keys() | tojson
range(2) | tojson
("<" | e) | tojson
{"b": 1, "a": 2} | tojson(none, true)
i is odd
i is even
q is odd
i is divisibleby 7
i is divisibleby(7)
s is string
i is number
t is number
t is integer
i is integer
f is float
t is boolean
t is true
1 is true
0 is false
z is none
q is none
l is sequence
d is sequence
s is sequence
i is sequence
q is sequence
d is mapping
l is iterable
i is iterable
s is iterable
q is iterable
range is callable
s is callable
s is lower
"ABC" is upper
i is eq 7
i is equalto(7)
i is gt 5
i is ge(7)
1 is in l
1 is not in l
"a" is sameas "b"
z is sameas none
i is not defined
not i is defined
i is defined and s is defined
i is defined == true
"upper" is filter
"odd" is test
i is nope
s | nope
s is string is string
raise_exception("no: " ~ i)
raise_exception()
strftime_now("%d %B %Y %H:%M:%S %j %a %A %b %y %I %p %% %-d %e %U %W %V %G %u %w %c %x %X %f %Z|%z|")
strftime_now()
nope()
i()
loop
loop is defined
self is defined
"a" if l else "b"
l | length > 2 and s | length == 12
s|upper|lower|length
[x for x in l]
lambda
a b
"unterminated
{1, 2}
l[1
1 +
**
i.real
d | list | first | upper
dict(a=1, **{"b": 2})
dict(**{"b": 2})
"{}".format(*[5])
range(*[1, 3]) | list
s[1], s[2]
1,
l | map("string") | join
w | map("length") | list
p | map(attribute="n") | length
p | map(attribute="n") | first
p | map(attribute="n") | last
(p | map(attribute="n"))[0]
[l, w] | sum(start=[]) | length
["x", "y"] | map("upper") | reverse | list
"%c%c" % (65, "b")
"%5s|%-5s|%.2s" % ("a", "b", "cde")
"%+d % d" % (1, 2)
"%e %g %G" % (12345.678, 0.0001, 1e-10)
"%i" % 3.7
"%s" % none
"%s" % q
"{:d}".format("a")
"{a}".format()
{"a": {"b": [1, 2]}}.a.b[1]
{"a": 1, "a": 2}
{true: 1, 1: 2, 1.0: 3}
1 in {true: 1}
"1" in {1: 1}
[1, 2, 3][true]
"abc"["upper"]()
"abc"[1.0] is defined
(0.1).hex
1.5.real
""".strip("\n").split("\n")

TEMPLATES = [
    "{% for x in l %}{{ x }}{% endfor %}", "{% for x in [] %}a{% else %}b{% endfor %}", "{% for x in z %}{% endfor %}", "{% for x in q %}a{% else %}e{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k in d %}{{ k }}{% endfor %}", "{% for a, b in [[1, 2], (3, 4)] %}{{ a }}{{ b }}{% endfor %}",
    "{% for a, b in [[1, 2, 3]] %}{% endfor %}", "{% for a, b in l %}{% endfor %}", "{% for a, (b, c) in [[1, [2, 3]]] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for x in l if x > 1 %}{{ loop.index }}{{ x }}{{ loop.last }}{% endfor %}", "{% for x in l %}{{ loop.index0 }}{{ loop.revindex }}{{ loop.first }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }}{% endfor %}",
    "{% for x in l %}{{ loop.cycle('a', 'b') }}{{ loop.changed(x > 1) }}{% endfor %}", "{% for x in l %}{% if loop.first %}{% set y = 1 %}{% endif %}{{ y }}{% endfor %}{{ y }}",
    "{% set y = 0 %}{% for x in l %}{% set y = y + x %}{{ y }}{% endfor %}{{ y }}", "{% set ns = namespace(y=0) %}{% for x in l %}{% set ns.y = ns.y + x %}{% endfor %}{{ ns.y }}",
    "{% set d.x = 1 %}", "{% set q.x = 1 %}", "{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}", "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% else %}e{% endfor %}",
    "{% break %}", "{% for x in l %}{% for y in l %}{{ loop.index }}{% if y == 1 %}{% break %}{% endif %}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% for x in [[1, [2]], 3] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}:{{ loop.depth }}{% endif %}{% endfor %}", "{% for x in l %}{{ loop(x) }}{% endfor %}",
    "{% if q %}a{% elif e %}b{% else %}c{% endif %}", "{% if l and i > 3 %}y{% endif %}", "{% if %}{% endif %}", "{% if i %}", "{% endif %}", "{% nope %}", "{{ }}", "{{", "{%", "{# x", "{% raw %}", "}} %} #}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a = 1, 2 %}{{ a }}", "{% set a %}x{{ i }}{% endset %}{{ a }}", "{% set a | upper %}x{% endset %}{{ a }}", "{% set true = 1 %}", "{% set a.b.c = 1 %}", "{% set a[0] = 1 %}",
    "{% if true %}{% set a = 1 %}{% endif %}{{ a }}", "{% with a = 1, b = i %}{{ a }}{{ b }}{% endwith %}{{ a }}", "{% with %}{% set c = 3 %}{{ c }}{% endwith %}{{ c }}", "{% with a = 1 %}{% with a = 2, b = a %}{{ b }}{% endwith %}{% endwith %}",
    "{% macro m(a, b=2) %}[{{ a }}|{{ b }}]{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=4, a=5) }}{{ m() }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(c=2) }}", "{% macro m(a) %}{{ a + 1 }}{% endmacro %}{{ m() }}",
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, x=2) }}", "{% macro m(a, b=a) %}{{ b }}{% endmacro %}{{ m(3) }}", "{% macro m(n) %}{{ n }}{% if n > 0 %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(3) }}",
    "{% macro m() %}{{ y }}{% endmacro %}{% set y = 5 %}{{ m() }}", "{% set y = 5 %}{% macro m() %}{% set y = 6 %}{{ y }}{% endmacro %}{{ m() }}{{ y }}", "{% for x in l %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}",
    "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}body{{ i }}{% endcall %}", "{% macro m() %}{{ caller(3) }}{% endmacro %}{% call(a) m() %}{{ a }}{% endcall %}", "{% macro m() %}x{% endmacro %}{% call m() %}{% endcall %}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}", "{{ m() }}{% macro m() %}x{% endmacro %}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m.name }}{{ m.arguments }}{{ m }}"[:56], "{% macro m(a=1, b) %}{% endmacro %}",
    "{% filter upper %}a{{ s }}{% endfilter %}", "{% filter indent(2) | upper %}a\nb{% endfilter %}", "{% generation %}x{{ i }}{% set g = 1 %}{% endgeneration %}{{ g }}", "{% print i, s %}", "{% block b %}x{{ i }}{% endblock %}",
    "a\n  {% if true %}  \n  b\n  {% endif %}  \nc\n", "a\n  {%- if true -%}  \n  b\n  {%- endif -%}  \nc\n", "  {{ i }}\n  {%+ if true %}x{% endif +%}\n y", "{# c #}\n  {# d #}  \nx\n{#- e -#}\ny", "  {# c #}x", "a {# c #}\nb", "\n\n{% if true %}\n\nx\n\n{% endif %}\n\n",
    "{{ i }}\n{{ i }}\n", "{{- i -}}  x  {{- i -}}", "a\r\n{% if true %}\r\nb\rc{% endif %}\r\n", "{% raw %}{{ x }}{% if %}{% endraw %}", "a\n  {% raw %}\n x {% endraw %}\nb", "a {%- raw -%} x {%- endraw -%} b", "{% raw -%}  x{% endraw %}\ny",
    "{{ '}}' }}{{ '%}' }}{{ \"{{\" }}", "{{ {'a': {'b': 1}} }}", "{{ {'a': {'b': 1}}.a }}", "{{ '{%' }}", "{ { } } {a} {", "{{ 'a\nb' }}", "{{ '\\n' }}|{{ \"\\\"\" }}", "{{ 1 }}{#{{ 2 }}#}{{ 3 }}", "{%if true%}a{%endif%}", "{{i}}", "{{ i\n+\n1 }}",
    "{% for x in l -%}\n  {{ x }},\n{%- endfor %}", "  {%- for x in l %}\n  {{ x }}\n  {% endfor %}", "x {%- set a = 1 %} y", "x\n{% set a = 1 -%}\n\n y", "{% set x = 'a' if q else 'b' %}{{ x }}", "{% set x = l[0] if l is defined and l | length > 0 %}{{ x }}",
    "{% include 'x' %}", "{% extends 'x' %}", "{% import 'x' as y %}", "{% do l %}", "{% for x in l %}{{ x }}{% endif %}", "{% for in l %}{% endfor %}", "{% for x l %}{% endfor %}", "{% if true %}{% else %}{% elif x %}{% endif %}", "{{ 1 2 }}", "{{ a.b. }}", "{{ 'a' | }}", "{{ (1 }}", "{{ 1) }}", "{{ [1}} }}", "{{ a! }}", "{{ ? }}",
    "{% if false %}{{ 1 | nope }}{% endif %}", "{{ 1 | nope if false else 2 }}", "{% if false %}{{ 1 is nope }}{% endif %}", "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}", "{% set j = joiner('|') %}{% for x in l %}{{ j() }}{{ x }}{% endfor %}",
    "{% set a = [] %}{% set a = a + [1] %}{{ a }}", "{% set _ = l.append(1) %}", "{{ l.append }}", "{% set x = l.pop() %}{{ l }}", "{% for x in l %}{% set l = [] %}{{ x }}{% endfor %}", "{% for l in l %}{{ l }}{% endfor %}{{ l }}", "{% for x in s %}{{ x }}.{% endfor %}", "{% for x in p | sort(attribute='n') | map(attribute='n') %}{{ loop.index }}{{ x }}{% endfor %}",
    "{% set m = p | map(attribute='n') %}{{ m | list }}{{ m | list }}", "{% for g in p[:2] | groupby('g') %}{{ g.grouper }}{{ g.list | length }}{{ g[0] }}{% endfor %}", "{% for k, v in d | dictsort %}{{ k }}{% endfor %}", "{% for x in range(3) %}{% for y in range(x) %}{{ loop.index }}{% endfor %}{% endfor %}",
    "{% for x in l recursive %}{{ x }}{% endfor %}", "{{ loop }}", "{% for x in l %}{% endfor %}{{ x }}{{ loop }}", "{% macro a() %}{% for x in l %}{{ caller }}{% endfor %}{% endmacro %}{{ a() }}", "{% set x %}{% set y = 2 %}{{ y }}{% endset %}{{ x }}{{ y }}", "{% if x is not defined %}{% set x = 3 %}{% endif %}{{ x }}", "{%- macro f(x) -%}\n  {{- x }}\n{%- endmacro -%}\n{{ f(1) }}",
    "{% for message in p %}{{ message['n'] + '\\n' }}{% endfor %}", "{% for x in l %}{{ x }}{% if not loop.last %}, {% endif %}{% endfor %}", "{{ 'é' }}ü😀{{ u }}", "{% set é = 1 %}{{ é }}", "{% for x in (1, 2) %}{{ x }}{% endfor %}", "{% for x in 1, 2 %}{{ x }}{% endfor %}", "{% for x in l if loop.first %}{% endfor %}",
    "{% if i is divisibleby 2 or i is odd %}o{% endif %}", "{% if not (i == 7) != false %}o{% endif %}", "{% if 'a' in s and s.startswith('H') or q.x %}o{% endif %}", "{{ 'x' if s is string else 'y' }}", "{{ i is number and s is string }}", "{{ s is string | string }}", "{{ l | length - 1 }}", "{{ -l | length }}", "{{ not l | length }}",
]


def main():
    out = []
    for t in ["{{ " + e + " }}" for e in EXPRESSIONS] + TEMPLATES:
        case = {"t": t}
        try:
            case["out"] = environment().from_string(t).render(**json.loads(json.dumps(VARS)))
        except Raised as e:
            case["raises"], case["raised"] = str(e), True
        except Exception as e:
            case["raises"] = type(e).__name__ + ": " + str(e)
        if " object at 0x" not in case.get("out", "") and " at 0x" not in case.get("out", ""):
            out.append(case)
    with open("expressions.json", "w", encoding="utf-8") as f:
        json.dump({"vars": VARS, "cases": out}, f, ensure_ascii=False, indent=0)
        f.write("\n")


if __name__ == "__main__":
    main()
