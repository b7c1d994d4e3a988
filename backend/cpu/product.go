package cpu

import (
	"github.com/apr-engine/apr/kernel"
	"github.com/apr-engine/apr/tensor"
)

// product is the matrix of an instruction.
type product struct {
	weights tensor.Tensor
	shares  shares
	unit    int // rows that are handed out together
	// together is how many units a kernel multiplies at a time.
	together int
	last     int // how many units of its own a worker takes if no more are left

	// multiply computes rows on worker w; gating, if not nil, goes on with them.
	multiply func(w, r0, r1 int)
	gating   *gating

	// Products that no barrier parts are a group: the others' rows are taken behind the
	// last of them, where more is not set, and before are all up to it.
	more   bool
	before []*product
	next   *product // the one that follows in the program, nil for the last
}

func (e *executor) newProduct(t tensor.Tensor) *product {
	return &product{weights: t, shares: make(shares, e.opts.Threads)}
}

// linkProducts tells products what follows them.
func linkProducts(code []instr) {
	var next *product
	for i := len(code) - 1; i >= 0; i-- {
		if p := code[i].product; p != nil {
			p.next, next = next, p
			p.more = p.next != nil && code[i+1].product == p.next && !code[i+1].barrier && !code[i+1].aloneBarrier
		}
		code[i].next = next
	}
	var group []*product
	for i := range code {
		p := code[i].product
		if p == nil {
			continue
		}
		group = append(group, p)
		if !p.more {
			p.before, group = group, nil
		}
	}
}

// reset makes all rows ready to be multiplied with some tokens.
func (p *product) reset(tokens int) {
	rows := p.weights.Rows()
	p.unit, p.together = rowAlign, bandUnits
	if tokens <= fewTokens {
		p.together = 1
		for p.unit > leastRows && p.unit*len(p.weights.Data) > pieceBytes*rows {
			p.unit /= 2
		}
	}
	units := (rows + p.unit - 1) / p.unit
	half := units / len(p.shares) / 2
	p.last = min(lastUnits, half)
	if p.unit*len(p.weights.Data) > pieceBytes*rows {
		p.last = 1
	}
	if p.more {
		p.last = half + 1 // nobody waits for them yet
	}
	p.shares.reset(units)
	if p.gating != nil {
		p.gating.reset()
	}
}

// run multiplies rows until none is left that another worker has not taken, or none of the
// worker's own if others of the group follow.
func (p *product) run(w int) {
	if len(p.shares) == 1 || p.together > 1 {
		rows := p.weights.Rows()
		p.shares.each(w, p.together, func(from, to int) { p.rows(w, from*p.unit, min(to*p.unit, rows)) })
		return
	}
	p.take(w, w)
	if p.more {
		return
	}
	for i := len(p.before) - 1; i >= 0; i-- {
		for turn := 1; turn < len(p.shares); turn++ {
			p.before[i].take(w, (w+turn)%len(p.shares))
		}
	}
}

// take multiplies, on worker w, what is left of a worker's part.
func (p *product) take(w, of int) {
	rows, part := p.weights.Rows(), &p.shares[of]
	for {
		from, to, ok := part.take(w == of, p.together, p.last)
		if !ok {
			return
		}
		if w == of && p.next != nil && part.empty() {
			kernel.Fetch(p.next.first(w, fetchBytes))
		}
		p.rows(w, from*p.unit, min(to*p.unit, rows))
	}
}

func (p *product) rows(w, r0, r1 int) {
	p.multiply(w, r0, r1)
	if p.gating != nil && p.gating.active() {
		p.gating.completed(w, r0, r1)
	}
}

const (
	// fetchBytes is how much of the next matrix is asked for before the last piece of one:
	// as much as kernels fetch ahead.
	fetchBytes = 8 << 10
	// readBytes is how much of it may be read by a worker that waits.
	readBytes = 128 << 10
)

// first is what worker w will read first, at most some bytes.
func (p *product) first(w, most int) []byte {
	left := p.shares[w].left.Load()
	rows := p.weights.Rows()
	rowBytes := len(p.weights.Data) / rows
	from, to := min(int(left>>32)*p.unit, rows), min(int(left&(1<<32-1))*p.unit, rows)
	return p.weights.Data[from*rowBytes:][:min((to-from)*rowBytes, most)]
}
