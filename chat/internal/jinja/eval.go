package jinja

import (
	"errors"
	"strings"
)

// evaluator holds what one rendering has used up.
type evaluator struct {
	limits Limits
	work   int
	depth  int // nested evaluations
	calls  int
}

// evalDepth bounds the Go stack: macros nest Limits.Calls deep and expressions may chain ("a+b+…") without nesting.
const evalDepth = 10_000

// charge pays for n units of work.
func (ev *evaluator) charge(n int) error {
	if n > ev.limits.Work-ev.work {
		return limitErr("work")
	}
	ev.work += n
	return nil
}

// iterationWork is the cost of a loop iteration or macro call beside its body: it allocates a scope.
const iterationWork = 5

func (ev *evaluator) chargeBytes(n int) error { return ev.charge(n/16 + 1) }

// scope is a chain of variables: innermost first, then the render arguments, then the global functions. Jinja gives a
// scope to each loop iteration, macro call, with, captured block; not to if.
type scope struct {
	names  []string
	vals   []any
	fixed  map[string]any
	parent *scope
}

func (s *scope) get(name string) (any, bool) {
	for ; s != nil; s = s.parent {
		for i := len(s.names) - 1; i >= 0; i-- {
			if s.names[i] == name {
				return s.vals[i], true
			}
		}
		if v, ok := s.fixed[name]; ok {
			return v, true
		}
	}
	return nil, false
}

func (s *scope) set(name string, v any) {
	for i, n := range s.names {
		if n == name {
			s.vals[i] = v
			return
		}
	}
	s.names = append(s.names, name)
	s.vals = append(s.vals, v)
}

var (
	errBreak    = errors.New("break")
	errContinue = errors.New("continue")
)

func (ev *evaluator) exec(nodes []node, sc *scope, out *strings.Builder) error {
	for _, n := range nodes {
		if err := ev.charge(1); err != nil {
			return err
		}
		line, err := ev.execNode(n, sc, out)
		if err != nil {
			return atLine(err, line)
		}
	}
	return nil
}

// atLine gives an error its line unless a statement further in has.
func atLine(err error, line int) error {
	if e, ok := err.(*Error); ok && e.Line == 0 && line > 0 {
		e2 := *e
		e2.Line = line
		return &e2
	}
	return err
}

func (ev *evaluator) write(out *strings.Builder, s string) error {
	if err := ev.chargeBytes(len(s)); err != nil {
		return err
	}
	if out.Len()+len(s) > ev.limits.Output {
		return limitErr("output")
	}
	out.WriteString(s)
	return nil
}

func (ev *evaluator) execNode(n node, sc *scope, out *strings.Builder) (line int, err error) {
	switch n := n.(type) {
	case *textNode:
		return 0, ev.write(out, n.text)
	case *outputNode:
		v, err := ev.eval(n.x, sc)
		if err != nil {
			return n.line, err
		}
		s, err := ev.str(v)
		if err != nil {
			return n.line, err
		}
		return n.line, ev.write(out, s)
	case *ifNode:
		return n.line, ev.execIf(n, sc, out)
	case *forNode:
		return n.line, ev.execFor(n, sc, out)
	case *setNode:
		v, err := ev.eval(n.x, sc)
		if err != nil {
			return n.line, err
		}
		return n.line, ev.assign(n.target, v, sc)
	case *setBlockNode:
		v, err := ev.capture(n.body, n.filters, sc)
		if err != nil {
			return n.line, err
		}
		return n.line, ev.assign(n.target, v, sc)
	case *filterNode:
		v, err := ev.capture(n.body, n.filters, sc)
		if err != nil {
			return n.line, err
		}
		s, err := ev.str(v)
		if err != nil {
			return n.line, err
		}
		return n.line, ev.write(out, s)
	case *withNode:
		return n.line, ev.execWith(n, sc, out)
	case *macroNode:
		sc.set(n.name, ev.macro(n, sc))
		return n.line, nil
	case *callNode:
		return n.line, ev.execCall(n, sc, out)
	case *scopeNode:
		return 0, ev.exec(n.body, &scope{parent: sc}, out)
	case breakNode:
		return 0, errBreak
	case contNode:
		return 0, errContinue
	}
	return 0, runtimeErr("unknown statement %T", n)
}

func (ev *evaluator) execIf(n *ifNode, sc *scope, out *strings.Builder) error {
	for i, c := range n.conds {
		v, err := ev.eval(c, sc)
		if err != nil {
			return err
		}
		if truthy(v) {
			return ev.exec(n.body[i], sc, out)
		}
	}
	return ev.exec(n.els, sc, out)
}

// assign stores v in a name, a tuple of names or a namespace attribute.
func (ev *evaluator) assign(target expr, v any, sc *scope) error {
	switch t := target.(type) {
	case *nameExpr:
		sc.set(t.name, v)
	case *tupleExpr:
		items, err := ev.iterate(v)
		if err != nil {
			return err
		}
		if len(items) > len(t.items) {
			return runtimeErr("too many values to unpack (expected %d)", len(t.items))
		}
		if len(items) < len(t.items) {
			return runtimeErr("not enough values to unpack (expected %d, got %d)", len(t.items), len(items))
		}
		for i, x := range t.items {
			if err := ev.assign(x, items[i], sc); err != nil {
				return err
			}
		}
	case *nsRef:
		obj, ok := sc.get(t.name)
		ns, isNS := obj.(*namespace)
		if !ok || !isNS {
			return runtimeErr("cannot assign attribute on non-namespace object")
		}
		ns.d.SetString(t.attr, v)
	}
	return nil
}

// capture renders a body into a string and applies filters to it.
func (ev *evaluator) capture(body []node, filters expr, sc *scope) (any, error) {
	var b strings.Builder
	if err := ev.exec(body, &scope{parent: sc}, &b); err != nil {
		return nil, err
	}
	if filters == nil {
		return b.String(), nil
	}
	inner := &scope{parent: sc}
	inner.set(capturedName, b.String())
	return ev.eval(filters, inner)
}

// capturedName cannot be written in a template.
const capturedName = "\x00captured"

func (ev *evaluator) execWith(n *withNode, sc *scope, out *strings.Builder) error {
	inner := &scope{parent: sc}
	vals := make([]any, len(n.values))
	for i, x := range n.values { // all values see the outer scope
		v, err := ev.eval(x, sc)
		if err != nil {
			return err
		}
		vals[i] = v
	}
	for i, t := range n.targets {
		if err := ev.assign(t, vals[i], inner); err != nil {
			return err
		}
	}
	return ev.exec(n.body, inner, out)
}

func (ev *evaluator) enterCall() error {
	ev.calls++
	if ev.calls > ev.limits.Calls {
		return limitErr("recursion")
	}
	return ev.charge(iterationWork)
}

// loopObj is the variable loop.
type loopObj struct {
	items   []any
	index0  int
	depth0  int
	changed []any // last arguments of loop.changed
	called  bool
	recurse func(items any) (any, error) // nil unless the loop is recursive
}

func (ev *evaluator) execFor(n *forNode, sc *scope, out *strings.Builder) error {
	v, err := ev.eval(n.iter, sc)
	if err != nil {
		return err
	}
	return ev.loop(n, v, sc, out, 0)
}

func (ev *evaluator) loop(n *forNode, v any, sc *scope, out *strings.Builder, depth int) error {
	items, err := ev.iterate(v)
	if err != nil {
		return err
	}
	if n.test != nil {
		if items, err = ev.loopFilter(n, items, sc); err != nil {
			return err
		}
	}
	if len(items) == 0 {
		return ev.exec(n.els, &scope{parent: sc}, out)
	}
	lo := &loopObj{items: items, depth0: depth}
	if n.recursive {
		lo.recurse = func(v any) (any, error) {
			defer func() { ev.calls-- }()
			if err := ev.enterCall(); err != nil {
				return nil, err
			}
			var b strings.Builder
			err := ev.loop(n, v, sc, &b, depth+1)
			return b.String(), err
		}
	}
	for i, item := range items {
		if err := ev.charge(iterationWork); err != nil {
			return err
		}
		lo.index0 = i
		inner := &scope{parent: sc}
		inner.set("loop", lo)
		if err := ev.assign(n.target, item, inner); err != nil {
			return err
		}
		switch err := ev.exec(n.body, inner, out); err {
		case nil, errContinue:
		case errBreak:
			return nil
		default:
			return err
		}
	}
	return nil
}

// loopFilter keeps the items that pass "if" in a for tag.
func (ev *evaluator) loopFilter(n *forNode, items []any, sc *scope) ([]any, error) {
	var kept []any
	for _, item := range items {
		if err := ev.charge(iterationWork); err != nil {
			return nil, err
		}
		inner := &scope{parent: sc}
		if err := ev.assign(n.target, item, inner); err != nil {
			return nil, err
		}
		ok, err := ev.eval(n.test, inner)
		if err != nil {
			return nil, err
		}
		if truthy(ok) {
			kept = append(kept, item)
		}
	}
	return kept, nil
}

// macro makes the callable for a macro or a call block's body. It sees variables as they are when it is called.
func (ev *evaluator) macro(n *macroNode, sc *scope) *Callable {
	name := n.name
	if name == "" {
		name = "caller"
	}
	params := make([]any, len(n.params))
	for i, p := range n.params {
		params[i] = p
	}
	return &Callable{
		name: name,
		attrs: map[string]any{
			"name": name, "arguments": &Tuple{Items: params}, "caller": n.caller,
			"catch_kwargs": n.kwargs, "catch_varargs": n.varargs,
		},
		fn: func(ev *evaluator, args []any, kw []kwarg) (any, error) {
			defer func() { ev.calls-- }()
			if err := ev.enterCall(); err != nil {
				return nil, err
			}
			inner := &scope{parent: sc}
			if err := ev.bindMacro(n, name, inner, args, kw); err != nil {
				return nil, err
			}
			var b strings.Builder
			if err := ev.exec(n.body, inner, &b); err != nil {
				return nil, err
			}
			return b.String(), nil
		},
	}
}

// bindMacro puts the arguments of a macro call into its scope, by jinja2's rules for what may be left over.
func (ev *evaluator) bindMacro(n *macroNode, name string, inner *scope, args []any, kw []kwarg) error {
	given := map[string]bool{}
	for i, p := range n.params {
		if i < len(args) {
			inner.set(p, args[i])
			given[p] = true
		}
	}
	rest := &Dict{}
	var caller any = undefinedName("caller")
	for _, k := range kw {
		isParam := false
		for _, p := range n.params {
			isParam = isParam || p == k.name
		}
		switch {
		case isParam && given[k.name]:
			return runtimeErr("macro '%s' got multiple values for argument '%s'", name, k.name)
		case isParam:
			inner.set(k.name, k.v)
			given[k.name] = true
		case k.name == "caller" && n.caller:
			caller = k.v
		default:
			rest.SetString(k.name, k.v)
		}
	}
	if rest.Len() > 0 && !n.kwargs {
		return runtimeErr("macro '%s' takes no keyword argument '%v'", name, rest.keys[0])
	}
	if len(args) > len(n.params) && !n.varargs {
		return runtimeErr("macro '%s' takes not more than %d argument(s)", name, len(n.params))
	}
	if n.caller {
		inner.set("caller", caller)
	}
	if n.kwargs {
		inner.set("kwargs", rest)
	}
	if n.varargs {
		inner.set("varargs", &Tuple{Items: args[min(len(args), len(n.params)):]})
	}
	first := len(n.params) - len(n.defaults)
	for i, p := range n.params {
		if given[p] {
			continue
		}
		var v any = &Undefined{hint: "parameter '" + p + "' was not provided", name: p}
		if i >= first {
			var err error
			if v, err = ev.eval(n.defaults[i-first], inner); err != nil {
				return err
			}
		}
		inner.set(p, v)
	}
	return nil
}

func (ev *evaluator) execCall(n *callNode, sc *scope, out *strings.Builder) error {
	fn, args, kw, err := ev.callParts(n.call, sc)
	if err != nil {
		return err
	}
	kw = append(kw, kwarg{"caller", ev.macro(n.caller, sc)})
	v, err := ev.callValue(fn, args, kw)
	if err != nil {
		return err
	}
	s, err := ev.str(v)
	if err != nil {
		return err
	}
	return ev.write(out, s)
}
