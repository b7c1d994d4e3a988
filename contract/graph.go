package contract

import (
	"slices"
	"strings"
)

// Graph is which contract builds on which.
type Graph struct {
	Stems   []string            // all contracts, sorted
	Depends map[string][]string // by stem, sorted; names that are no contract included
	Order   []string            // what is built on comes first; contracts in circles are left out
	Circles [][]string          // groups of contracts that depend on each other

	findings []Finding
}

// NewGraph links contracts by metadata.depends_on.
func NewGraph(contracts []*Contract) *Graph {
	g := &Graph{Depends: map[string][]string{}}
	byStem := map[string]*Contract{}
	for _, c := range contracts {
		if first, ok := byStem[c.Stem]; ok {
			g.find(c, Pos{}, "STEM-001", "the name "+c.Stem+" is taken by "+first.Path)
			continue
		}
		byStem[c.Stem] = c
		g.Stems = append(g.Stems, c.Stem)
	}
	slices.Sort(g.Stems)
	for _, stem := range g.Stems {
		c := byStem[stem]
		for _, d := range c.Metadata.DependsOn {
			g.Depends[stem] = append(g.Depends[stem], d.Value)
			if byStem[d.Value] == nil {
				g.find(c, d.Pos, "DEPEND-001", "depends_on names "+d.Value+", which is not there")
			}
		}
		slices.Sort(g.Depends[stem])
		g.Depends[stem] = slices.Compact(g.Depends[stem])
	}
	g.order(byStem)
	for _, circle := range g.Circles {
		c := byStem[circle[0]]
		g.find(c, c.Metadata.DependsOn[0].Pos, "DEPEND-002", "these depend on each other: "+strings.Join(circle, ", "))
	}
	return g
}

func (g *Graph) find(c *Contract, pos Pos, rule, message string) {
	def, _ := FindRule(rule)
	g.findings = append(g.findings, Finding{rule, def.Severity, c.Path, pos.Line, pos.Column, message})
}

// Findings are the DEPEND and STEM rules.
func (g *Graph) Findings() []Finding { return g.findings }

// order finds strongly connected components (Tarjan 1972), which come out with
// what is depended on first. A chain is as deep as there are contracts.
func (g *Graph) order(known map[string]*Contract) {
	index := map[string]int{}
	low := map[string]int{}
	onStack := map[string]bool{}
	var stack []string
	var visit func(v string)
	visit = func(v string) {
		index[v] = len(index) + 1
		low[v] = index[v]
		stack = append(stack, v)
		onStack[v] = true
		for _, w := range g.Depends[v] {
			if known[w] == nil {
				continue
			}
			if index[w] == 0 {
				visit(w)
				low[v] = min(low[v], low[w])
			} else if onStack[w] {
				low[v] = min(low[v], index[w])
			}
		}
		if low[v] != index[v] {
			return
		}
		i := slices.Index(stack, v)
		group := slices.Clone(stack[i:])
		stack = stack[:i]
		for _, w := range group {
			onStack[w] = false
		}
		if len(group) > 1 || slices.Contains(g.Depends[v], v) {
			slices.Sort(group)
			g.Circles = append(g.Circles, group)
		} else {
			g.Order = append(g.Order, v)
		}
	}
	for _, v := range g.Stems {
		if index[v] == 0 {
			visit(v)
		}
	}
}
