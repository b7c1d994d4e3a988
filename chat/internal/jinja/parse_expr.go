package jinja

import (
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// tuple reads expressions separated by commas; one alone is itself. parens: "()" is the empty tuple.
func (p *parser) tuple(withCond bool, ends []string, parens bool) expr {
	var items []expr
	isTuple := false
	for !p.tupleEnd(ends) {
		if withCond {
			items = append(items, p.expression())
		} else {
			items = append(items, p.or())
		}
		if !p.skipOp(",") {
			break
		}
		isTuple = true
	}
	if !isTuple {
		if len(items) == 1 {
			return items[0]
		}
		if !parens {
			p.fail("expected an expression, got %s", p.cur())
		}
	}
	return &tupleExpr{items}
}

func (p *parser) expression() expr {
	p.enter()
	defer p.leave()
	line := p.cur().line
	known := len(p.unknown)
	x := p.or()
	for p.skipName("if") {
		c := &condExpr{line: line, test: p.or(), x: x}
		if p.skipName("else") {
			c.els = p.expression()
		}
		p.unknown = p.unknown[:known]
		x = c
	}
	return x
}

func (p *parser) or() expr {
	x := p.and()
	for p.skipName("or") {
		x = &binExpr{"or", x, p.and()}
	}
	return x
}

func (p *parser) and() expr {
	x := p.not()
	for p.skipName("and") {
		x = &binExpr{"and", x, p.not()}
	}
	return x
}

func (p *parser) not() expr {
	if p.isName("not") {
		p.enter()
		defer p.leave()
		p.next()
		return &unaryExpr{"not", p.not()}
	}
	return p.compare()
}

func (p *parser) compare() expr {
	x := p.sum()
	c := &cmpExpr{x: x}
	for {
		op := ""
		t := p.cur()
		switch {
		case t.kind == tokOp && slices.Contains([]string{"==", "!=", "<", "<=", ">", ">="}, t.val):
			op = t.val
		case p.isName("in"):
			op = "in"
		case p.isName("not") && p.look().kind == tokName && p.look().val == "in":
			p.next()
			op = "not in"
		}
		if op == "" {
			break
		}
		p.next()
		c.ops = append(c.ops, op)
		c.ys = append(c.ys, p.sum())
	}
	if c.ops == nil {
		return x
	}
	return c
}

// binary reads a left-associative chain of the given operators.
func (p *parser) binary(operand func() expr, ops ...string) expr {
	x := operand()
	for p.cur().kind == tokOp && slices.Contains(ops, p.cur().val) {
		op := p.next().val
		x = &binExpr{op, x, operand()}
	}
	return x
}

func (p *parser) sum() expr { return p.binary(p.concat, "+", "-") }

func (p *parser) concat() expr {
	items := []expr{p.product()}
	for p.skipOp("~") {
		items = append(items, p.product())
	}
	if len(items) == 1 {
		return items[0]
	}
	return &concatExpr{items}
}

func (p *parser) product() expr { return p.binary(p.power, "*", "/", "//", "%") }

func (p *parser) power() expr {
	return p.binary(func() expr { return p.unary(true) }, "**")
}

func (p *parser) unary(withFilter bool) expr {
	p.enter()
	defer p.leave()
	var x expr
	switch {
	case p.skipOp("-"):
		x = &unaryExpr{"-", p.unary(false)}
	case p.skipOp("+"):
		x = &unaryExpr{"+", p.unary(false)}
	default:
		x = p.primary()
	}
	x = p.postfix(x)
	if withFilter {
		x = p.filterOrTest(x)
	}
	return x
}

func (p *parser) primary() expr {
	t := p.next()
	switch t.kind {
	case tokName:
		switch t.val {
		case "true", "True":
			return &constExpr{true}
		case "false", "False":
			return &constExpr{false}
		case "none", "None":
			return &constExpr{nil}
		}
		for _, seen := range p.names {
			seen[t.val] = true
		}
		return &nameExpr{t.val}
	case tokString:
		s := t.val
		for p.cur().kind == tokString {
			s += p.next().val
		}
		return &constExpr{s}
	case tokInt:
		if len(t.val) > 4300 { // Python's own limit
			p.fail("integer with %d digits", len(t.val))
		}
		base := 10
		if strings.ContainsAny(t.val, "xXoObB") {
			base = 0
		}
		if v, err := strconv.ParseInt(t.val, base, 64); err == nil {
			return &constExpr{v}
		}
		if v, ok := new(big.Int).SetString(t.val, base); ok && v.BitLen() < 4096 {
			return &constExpr{v}
		}
	case tokFloat:
		if v, err := strconv.ParseFloat(t.val, 64); err == nil || v != 0 {
			return &constExpr{v}
		}
	case tokOp:
		switch t.val {
		case "(":
			x := p.tuple(true, nil, true)
			p.expectOp(")")
			return x
		case "[":
			return &listExpr{p.list("]")}
		case "{":
			return p.dict()
		}
	}
	p.pos = max(p.pos-1, 0)
	p.fail("unexpected %s", t)
	return nil
}

// list reads expressions up to the closing bracket; a trailing comma is allowed.
func (p *parser) list(end string) []expr {
	var items []expr
	for !p.skipOp(end) {
		if items != nil {
			p.expectOp(",")
			if p.skipOp(end) {
				break
			}
		}
		items = append(items, p.expression())
	}
	return items
}

func (p *parser) dict() expr {
	d := &dictExpr{}
	for !p.skipOp("}") {
		if d.keys != nil {
			p.expectOp(",")
			if p.skipOp("}") {
				break
			}
		}
		d.keys = append(d.keys, p.expression())
		p.expectOp(":")
		d.vals = append(d.vals, p.expression())
	}
	return d
}

func (p *parser) postfix(x expr) expr {
	for {
		switch {
		case p.isOp(".") || p.isOp("["):
			x = p.subscript(x)
		case p.isOp("("):
			x = p.call(x)
		default:
			return x
		}
	}
}

func (p *parser) filterOrTest(x expr) expr {
	for {
		switch {
		case p.isOp("|"):
			x = p.filters(x, false)
		case p.isName("is"):
			x = p.test(x)
		case p.isOp("("):
			x = p.call(x)
		default:
			return x
		}
	}
}

func (p *parser) subscript(x expr) expr {
	if p.next().val == "." {
		t := p.next()
		switch t.kind {
		case tokName:
			return &attrExpr{x, t.val}
		case tokInt:
			if v, err := strconv.ParseInt(t.val, 10, 64); err == nil {
				return &itemExpr{x, &constExpr{v}}
			}
		}
		p.fail("expected name or number")
	}
	var keys []expr
	for !p.skipOp("]") {
		if keys != nil {
			p.expectOp(",")
		}
		keys = append(keys, p.subscribed())
	}
	switch len(keys) {
	case 0:
		p.fail("expected subscript expression")
	case 1:
		return &itemExpr{x, keys[0]}
	}
	return &itemExpr{x, &tupleExpr{keys}}
}

// subscribed reads an index or a slice.
func (p *parser) subscribed() expr {
	s := &sliceExpr{}
	if !p.isOp(":") {
		s.start = p.expression()
		if !p.isOp(":") {
			return s.start
		}
	}
	p.expectOp(":")
	end := func() bool { return p.isOp(":") || p.isOp("]") || p.isOp(",") }
	if !end() {
		s.stop = p.expression()
	}
	if p.skipOp(":") && !end() {
		s.step = p.expression()
	}
	return s
}

func (p *parser) call(fn expr) expr {
	line := p.cur().line
	return &callExpr{line, fn, p.callArgs()}
}

func (p *parser) callArgs() callArgs {
	p.expectOp("(")
	var a callArgs
	first := true
	for !p.skipOp(")") {
		if !first {
			p.expectOp(",")
			if p.skipOp(")") {
				break
			}
		}
		first = false
		switch {
		case p.isOp("*"):
			if a.star != nil || a.starStar != nil {
				p.fail("invalid syntax for function call expression")
			}
			p.next()
			a.star = p.expression()
		case p.isOp("**"):
			if a.starStar != nil {
				p.fail("invalid syntax for function call expression")
			}
			p.next()
			a.starStar = p.expression()
		case p.cur().kind == tokName && p.look().kind == tokOp && p.look().val == "=":
			if a.starStar != nil {
				p.fail("invalid syntax for function call expression")
			}
			a.names = append(a.names, p.next().val)
			p.next()
			a.named = append(a.named, p.expression())
		default:
			if a.names != nil || a.star != nil || a.starStar != nil {
				p.fail("invalid syntax for function call expression")
			}
			a.pos = append(a.pos, p.expression())
		}
	}
	return a
}

// dotted reads a filter's or test's name.
func (p *parser) dotted() string {
	name := p.expectName()
	for p.skipOp(".") {
		name += "." + p.expectName()
	}
	return name
}

// filters reads "|name(args)|…"; inline: the first "|" is left out.
func (p *parser) filters(x expr, inline bool) expr {
	for p.isOp("|") || inline {
		if !inline {
			p.next()
		}
		inline = false
		f := &filterExpr{line: p.cur().line, x: x, name: p.dotted()}
		if f.fn = filterFuncs[f.name]; f.fn == nil {
			p.noteUnknown("filter", f.name)
		}
		if p.isOp("(") {
			f.args = p.callArgs()
		}
		x = f
	}
	return x
}

func (p *parser) test(x expr) expr {
	p.enter()
	defer p.leave()
	t := &testExpr{line: p.next().line, x: x}
	t.not = p.skipName("not")
	t.name = p.dotted()
	if t.fn = testFuncs[t.name]; t.fn == nil {
		p.noteUnknown("test", t.name)
	}
	c := p.cur()
	switch {
	case p.isOp("("):
		t.args = p.callArgs()
	case c.kind == tokString || c.kind == tokInt || c.kind == tokFloat || p.isOp("[") || p.isOp("{"),
		c.kind == tokName && c.val != "else" && c.val != "or" && c.val != "and":
		if p.isName("is") {
			p.fail("you cannot chain multiple tests with 'is'")
		}
		t.args.pos = []expr{p.postfix(p.primary())}
	}
	return t
}
