package jinja

// Statements. Each carries its line for error messages.
type node interface{}

type (
	textNode   struct{ text string }
	outputNode struct {
		line int
		x    expr
	}
	ifNode struct {
		line  int
		conds []expr // one a branch
		body  [][]node
		els   []node
	}
	forNode struct {
		line      int
		target    expr // nameExpr or tupleExpr
		iter      expr
		test      expr // "for x in y if test", or nil
		recursive bool
		body, els []node
	}
	setNode struct {
		line   int
		target expr // nameExpr, tupleExpr or nsRef
		x      expr
	}
	setBlockNode struct {
		line    int
		target  expr
		filters expr // applied to the captured text; nil for none
		body    []node
	}
	withNode struct {
		line    int
		targets []expr
		values  []expr
		body    []node
	}
	macroNode struct {
		line int
		name string // "" for the body of a call block
		signature
		body []node
	}
	callNode struct {
		line   int
		call   *callExpr
		caller *macroNode
	}
	filterNode struct {
		line    int
		filters expr
		body    []node
	}
	scopeNode struct{ body []node } // generation and block: a scope of its own, nothing else
	breakNode struct{}
	contNode  struct{}
)

type signature struct {
	params   []string
	defaults []expr // of the last len(defaults) params
	caller   bool   // the body mentions caller, kwargs, varargs
	kwargs   bool
	varargs  bool
}

// Expressions.
type expr interface{}

type (
	constExpr struct{ v any }
	nameExpr  struct{ name string }
	nsRef     struct{ name, attr string } // set target "ns.attr"
	listExpr  struct{ items []expr }
	tupleExpr struct{ items []expr }
	dictExpr  struct{ keys, vals []expr }
	unaryExpr struct {
		op string // "not", "-", "+"
		x  expr
	}
	binExpr struct {
		op   string // arithmetic, "and", "or"
		x, y expr
	}
	cmpExpr struct {
		x   expr
		ops []string // "==", …, "in", "not in"
		ys  []expr
	}
	concatExpr struct{ items []expr }
	condExpr   struct {
		line         int
		test, x, els expr // els nil: undefined
	}
	attrExpr struct {
		x    expr
		name string
	}
	itemExpr  struct{ x, key expr }
	sliceExpr struct{ start, stop, step expr } // each may be nil
	callExpr  struct {
		line int
		fn   expr
		args callArgs
	}
	filterExpr struct {
		line int
		x    expr // nil: the captured text of a block
		name string
		fn   filterFunc // nil: unknown, an error when reached
		args callArgs
	}
	testExpr struct {
		line int
		x    expr
		name string
		fn   testFunc
		args callArgs
		not  bool
	}
	capturedExpr struct{} // the text a set or filter block captured
)

type callArgs struct {
	pos      []expr
	names    []string
	named    []expr
	star     expr // *args
	starStar expr // **kwargs
}
