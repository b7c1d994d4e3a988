package cpu

import (
	"regexp"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/tensor"
)

// profile collects the time of each instruction. It exists only while timing is
// on; without it a step runs as if there were none.
type profile struct {
	// spent and waited are by worker: on each instruction, and at the barrier before
	// it, until the last worker came.
	spent  [][]time.Duration
	waited []time.Duration
	waits  int
	calls  []int
	costs  []cost // summed over calls, by instruction
}

// cost is what an operation asks of the machine in one step.
type cost struct{ bytes, operations float64 }

// SetProfile begins to time steps at zero, or ends it.
func (e *executor) SetProfile(on bool) {
	if !on {
		e.profile = nil
		return
	}
	p := &profile{waited: make([]time.Duration, e.opts.Threads), calls: make([]int, len(e.code)), costs: make([]cost, len(e.code))}
	for range e.opts.Threads {
		p.spent = append(p.spent, make([]time.Duration, len(e.code)))
	}
	e.profile = p
}

// executeTimed is execute with a look at the clock after each instruction.
func (e *executor) executeTimed(w int) {
	spent, now := e.profile.spent[w], time.Now()
	lap := func(d *time.Duration) {
		t := time.Now()
		*d += t.Sub(now)
		now = t
	}
	for i := range e.code {
		in := &e.code[i]
		if in.gating != nil && in.gating.active() {
			continue
		}
		if e.waitsBefore(in) {
			e.pool.barrier.waitReading(e.ahead(w, in))
			lap(&e.profile.waited[w])
		}
		in.run(w)
		lap(&spent[i])
	}
	if e.opts.Threads > 1 {
		e.pool.barrier.wait()
		lap(&e.profile.waited[w])
	}
}

// count adds what the operations of a step that has run had to do.
func (p *profile) count(e *executor) {
	for i := range e.code {
		in := &e.code[i]
		if in.gating != nil && in.gating.active() {
			continue
		}
		p.calls[i]++
		if e.waitsBefore(in) {
			p.waits++
		}
		if in.cost != nil {
			c := in.cost(&e.step)
			p.costs[i].bytes += c.bytes
			p.costs[i].operations += c.operations
		}
	}
}

// Profile sums the times of the operations of each name.
func (e *executor) Profile() []backend.OperationTime {
	p := e.profile
	if p == nil {
		return nil
	}
	mean := func(at func(worker int) time.Duration) (sum time.Duration) {
		for w := range p.spent {
			sum += at(w)
		}
		return sum / time.Duration(len(p.spent))
	}
	index := map[string]int{}
	var list []backend.OperationTime
	for i := range e.code {
		in := &e.code[i]
		at, ok := index[in.label]
		if !ok {
			at = len(list)
			index[in.label] = at
			list = append(list, backend.OperationTime{Name: in.label, Integer: in.integer})
		}
		list[at].Calls += p.calls[i]
		list[at].Time += mean(func(w int) time.Duration { return p.spent[w][i] })
		list[at].Bytes += p.costs[i].bytes
		list[at].Operations += p.costs[i].operations
	}
	return append(list, backend.OperationTime{Name: "wait", Calls: p.waits, Time: mean(func(w int) time.Duration { return p.waited[w] })})
}

// layerName is the layer in the name of a tensor.
var layerName = regexp.MustCompile(`^blk\.\d+\.|\.weight$`)

// label names the products with the same matrix of every layer.
func label(variant, weight string) string {
	return variant + " " + layerName.ReplaceAllString(weight, "")
}

// matrixCost is the cost of a product with every token, or every row of logits.
func matrixCost(t tensor.Tensor, tokens func(*step) int) func(*step) cost {
	return func(s *step) cost {
		n := tokens(s)
		if n == 0 {
			return cost{}
		}
		return cost{float64(len(t.Data)), 2 * float64(t.Elements()) * float64(n)}
	}
}

func stepTokens(s *step) int { return len(s.tokens) }
func stepWanted(s *step) int { return len(s.wanted) }

// attentionCost counts the keys and values that some token sees, once for each
// sequence, and the products of every token with those it sees.
func (e *executor) attentionCost(layer, heads int) func(*step) cost {
	c := e.program.Caches[layer]
	position := float64(2*c.Heads*c.HeadDim*e.opts.KV.BlockBytes()) / float64(e.opts.KV.BlockLen())
	return func(s *step) (sum cost) {
		for i, end := range s.ends {
			start := 0
			if c.Window > 0 {
				start = max(0, end-c.Window)
			}
			sum.operations += 4 * float64(heads*c.HeadDim*(end-start))
			read := end - start
			if i > 0 && s.seqs[i-1] == s.seqs[i] {
				read = 1 // the token before has seen the others
			}
			sum.bytes += position * float64(read)
		}
		return sum
	}
}
