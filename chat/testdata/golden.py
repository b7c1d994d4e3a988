#!/usr/bin/python3
"""Renders every template in templates/ with every conversation in conversations.json by Python's jinja2, set up as
transformers' chat template utilities set it up, and writes golden.json.

Run from this folder with jinja2 3.1.2. golden.json: {template: {conversation: {"out": text} or {"raises": message}}};
"raised" is true where the message is the template's own (raise_exception).
"""
import datetime
import json
import os

import jinja2
import jinja2.ext
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2026, 3, 7, 9, 5, 2)


class Generation(Extension):
    """The generation block, which marks the assistant's text and prints it unchanged."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_emit"), [], [], body).set_lineno(line)

    def _emit(self, caller):
        return caller()


class Raised(jinja2.exceptions.TemplateError):
    """What raise_exception raises, told apart from jinja2's own errors."""


def raise_exception(message):
    raise Raised(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda fmt: NOW.strftime(fmt)
    return env


def render(env, source, c):
    try:
        variables = {"messages": c["messages"], "tools": c.get("tools"), "documents": c.get("documents"),
                     "add_generation_prompt": c.get("add_generation_prompt", False)}
        variables.update({k: c[k] for k in ("bos_token", "eos_token") if k in c})
        variables.update(c.get("extra", {}))
        return {"out": env.from_string(source).render(**variables)}
    except Raised as e:
        return {"raises": str(e), "raised": True}
    except Exception as e:  # whatever Python raises, the renderer must fail too
        return {"raises": type(e).__name__ + ": " + str(e)}


def main():
    with open("conversations.json", encoding="utf-8") as f:
        conversations = json.load(f)
    golden = {}
    for name in sorted(os.listdir("templates")):
        with open("templates/" + name, encoding="utf-8", newline="") as f:
            source = f.read()
        # Loaded anew each time: list.pop() in a template changes what it is given.
        golden[name.removesuffix(".jinja")] = {
            k: render(environment(), source, json.loads(json.dumps(c))) for k, c in conversations.items()
        }
    with open("golden.json", "w", encoding="utf-8") as f:
        json.dump(golden, f, ensure_ascii=False, indent=0)
        f.write("\n")


if __name__ == "__main__":
    main()
