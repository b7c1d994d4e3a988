package jinja

import (
	"fmt"
	"slices"
)

// parser follows jinja2's parser; each method names the grammar rule it reads.
type parser struct {
	toks   []token
	pos    int
	limits Limits
	depth  int
	loops  int               // enclosing for loops in this function body
	names  []map[string]bool // a set for each enclosing function body: the names it mentions
	// unknown collects unknown filters and tests. In a branch of a condition they are errors only when reached; the
	// others fail the parse at its end.
	unknown []*Error
}

func parse(toks []token, limits Limits) ([]node, error) {
	p := &parser{toks: toks, limits: limits}
	var body []node
	err := p.catch(func() {
		body = p.statements(nil)
		if p.cur().kind != tokEOF {
			p.fail("unexpected %s", p.cur())
		}
		if len(p.unknown) > 0 {
			panic(p.unknown[0])
		}
	})
	return body, err
}

// catch turns the parser's own failure, thrown by fail, into an error. Other panics pass.
func (p *parser) catch(f func()) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case *Error:
			err = r
		default:
			panic(r)
		}
	}()
	f()
	return nil
}

func (p *parser) fail(format string, args ...any) {
	panic(&Error{Line: p.cur().line, Kind: ErrSyntax, Msg: fmt.Sprintf(format, args...)})
}

func (p *parser) noteUnknown(kind, name string) {
	p.unknown = append(p.unknown, &Error{
		Line: p.cur().line, Kind: ErrSyntax, Msg: fmt.Sprintf("no %s named '%s'", kind, name),
	})
}

func (p *parser) enter() {
	p.depth++
	if p.depth > p.limits.Nest {
		panic(&Error{Line: p.cur().line, Kind: ErrLimit, Msg: fmt.Sprintf("template nested deeper than %d", p.limits.Nest)})
	}
}

func (p *parser) leave() { p.depth-- }

func (p *parser) cur() token { return p.toks[p.pos] }

func (p *parser) look() token {
	if p.pos+1 < len(p.toks) {
		return p.toks[p.pos+1]
	}
	return p.toks[len(p.toks)-1]
}

func (p *parser) next() token {
	t := p.toks[p.pos]
	if p.pos+1 < len(p.toks) {
		p.pos++
	}
	return t
}

func (p *parser) isOp(v string) bool   { return p.cur().kind == tokOp && p.cur().val == v }
func (p *parser) isName(v string) bool { return p.cur().kind == tokName && p.cur().val == v }

func (p *parser) skipOp(v string) bool {
	if p.isOp(v) {
		p.next()
		return true
	}
	return false
}

func (p *parser) skipName(v string) bool {
	if p.isName(v) {
		p.next()
		return true
	}
	return false
}

func (p *parser) expectOp(v string) {
	if !p.skipOp(v) {
		p.fail("expected token '%s', got %s", v, p.cur())
	}
}

func (p *parser) expectName() string {
	if p.cur().kind != tokName {
		p.fail("expected a name, got %s", p.cur())
	}
	return p.next().val
}

func (p *parser) expect(k tokKind) {
	if p.cur().kind != k {
		p.fail("expected %s, got %s", token{kind: k}, p.cur())
	}
	p.next()
}

// statements reads template data and tags until one of the end tags, whose block_begin and name it consumes.
func (p *parser) statements(ends []string) []node {
	p.enter()
	defer p.leave()
	var out []node
	for {
		t := p.cur()
		switch t.kind {
		case tokEOF:
			if ends != nil {
				p.fail("unexpected end of template, expected %q", ends)
			}
			return out
		case tokData:
			p.next()
			out = append(out, &textNode{t.val})
		case tokVarBegin:
			p.next()
			x := p.tuple(true, nil, false)
			p.expect(tokVarEnd)
			out = append(out, &outputNode{t.line, x})
		case tokBlockBegin:
			p.next()
			if p.cur().kind == tokName && slices.Contains(ends, p.cur().val) {
				return out
			}
			out = append(out, p.statement(t.line)...)
			p.expect(tokBlockEnd)
		default:
			p.fail("unexpected %s", t)
		}
	}
}

// body reads "%} … {% end" and leaves the parser behind the end tag's name.
func (p *parser) body(end string) []node {
	p.expect(tokBlockEnd)
	b := p.statements([]string{end})
	p.next()
	return b
}

func (p *parser) statement(line int) []node {
	name := p.expectName()
	switch name {
	case "for":
		return []node{p.forStmt(line)}
	case "if":
		return []node{p.ifStmt(line)}
	case "set":
		return []node{p.setStmt(line)}
	case "with":
		return []node{p.withStmt(line)}
	case "print":
		var out []node
		for p.cur().kind != tokBlockEnd {
			if out != nil {
				p.expectOp(",")
			}
			out = append(out, &outputNode{line, p.expression()})
		}
		return out
	case "macro":
		return []node{p.macroStmt(line)}
	case "call":
		return []node{p.callStmt(line)}
	case "filter":
		f := p.filters(capturedExpr{}, true)
		return []node{&filterNode{line, f, p.body("endfilter")}}
	case "generation":
		return []node{&scopeNode{p.body("endgeneration")}}
	case "block":
		p.expectName()
		p.skipName("scoped")
		p.skipName("required")
		b := &scopeNode{p.body("endblock")}
		if p.cur().kind == tokName {
			p.next()
		}
		return []node{b}
	case "break", "continue":
		if p.loops == 0 {
			p.fail("'%s' outside a loop", name)
		}
		if name == "break" {
			return []node{breakNode{}}
		}
		return []node{contNode{}}
	}
	p.pos--
	p.fail("encountered unknown tag '%s'", name)
	return nil
}

func (p *parser) forStmt(line int) node {
	n := &forNode{line: line}
	n.target = p.assignTarget(true, false, "in")
	if !p.skipName("in") {
		p.fail("expected 'in', got %s", p.cur())
	}
	n.iter = p.tuple(false, []string{"recursive"}, false)
	if p.skipName("if") {
		n.test = p.expression()
	}
	n.recursive = p.skipName("recursive")
	p.expect(tokBlockEnd)
	p.loops++
	n.body = p.statements([]string{"endfor", "else"})
	p.loops--
	if p.next().val == "else" {
		n.els = p.body("endfor")
	}
	return n
}

func (p *parser) ifStmt(line int) node {
	n := &ifNode{line: line}
	known := len(p.unknown)
	defer func() { p.unknown = p.unknown[:known] }()
	for {
		n.conds = append(n.conds, p.tuple(false, nil, false))
		p.expect(tokBlockEnd)
		n.body = append(n.body, p.statements([]string{"elif", "else", "endif"}))
		switch p.next().val {
		case "elif":
			continue
		case "else":
			n.els = p.body("endif")
		}
		return n
	}
}

func (p *parser) setStmt(line int) node {
	target := p.assignTarget(true, true)
	if p.skipOp("=") {
		return &setNode{line, target, p.tuple(true, nil, false)}
	}
	var f expr
	if p.isOp("|") {
		f = p.filters(capturedExpr{}, false)
	}
	return &setBlockNode{line, target, f, p.body("endset")}
}

func (p *parser) withStmt(line int) node {
	n := &withNode{line: line}
	for p.cur().kind != tokBlockEnd {
		if n.targets != nil {
			p.expectOp(",")
		}
		n.targets = append(n.targets, p.assignTarget(true, false))
		p.expectOp("=")
		n.values = append(n.values, p.expression())
	}
	n.body = p.body("endwith")
	return n
}

// functionBody reads a body in which loops outside do not count, and notes the special names it mentions.
func (p *parser) functionBody(n *macroNode, end string) {
	loops := p.loops
	p.loops = 0
	p.names = append(p.names, map[string]bool{})
	n.body = p.body(end)
	seen := p.names[len(p.names)-1]
	p.names = p.names[:len(p.names)-1]
	p.loops = loops
	n.caller, n.kwargs, n.varargs = seen["caller"], seen["kwargs"], seen["varargs"]
}

func (p *parser) macroStmt(line int) node {
	n := &macroNode{line: line, name: p.expectName()}
	n.params, n.defaults = p.signature()
	p.functionBody(n, "endmacro")
	return n
}

func (p *parser) callStmt(line int) node {
	caller := &macroNode{line: line}
	if p.isOp("(") {
		caller.params, caller.defaults = p.signature()
	}
	call, ok := p.expression().(*callExpr)
	if !ok {
		p.fail("expected call")
	}
	p.functionBody(caller, "endcall")
	return &callNode{line, call, caller}
}

func (p *parser) signature() (params []string, defaults []expr) {
	p.expectOp("(")
	for !p.skipOp(")") {
		if params != nil {
			p.expectOp(",")
			if p.skipOp(")") {
				break
			}
		}
		params = append(params, p.targetName())
		if p.skipOp("=") {
			defaults = append(defaults, p.expression())
		} else if defaults != nil {
			p.fail("non-default argument follows default argument")
		}
	}
	return params, defaults
}

func (p *parser) targetName() string {
	name := p.expectName()
	switch name {
	case "true", "True", "false", "False", "none", "None":
		p.fail("can't assign to '%s'", name)
	}
	return name
}

// assignTarget reads what may stand left of "=" or of "in".
func (p *parser) assignTarget(withTuple, withNS bool, ends ...string) expr {
	if withNS && p.look().kind == tokOp && p.look().val == "." {
		name := p.expectName()
		p.next()
		return &nsRef{name, p.expectName()}
	}
	p.enter()
	defer p.leave()
	one := func() expr {
		if p.skipOp("(") {
			t := p.assignTarget(true, false)
			p.expectOp(")")
			return t
		}
		return &nameExpr{p.targetName()}
	}
	first := one()
	if !withTuple || !p.isOp(",") {
		return first
	}
	t := &tupleExpr{[]expr{first}}
	for p.skipOp(",") {
		if p.tupleEnd(ends) || p.isOp("=") {
			break
		}
		t.items = append(t.items, one())
	}
	return t
}

func (p *parser) tupleEnd(ends []string) bool {
	t := p.cur()
	switch t.kind {
	case tokVarEnd, tokBlockEnd:
		return true
	case tokName:
		return slices.Contains(ends, t.val)
	}
	return t.kind == tokOp && t.val == ")"
}
