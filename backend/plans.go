package backend

import "slices"

// Plans names the kernels of an executor's steps, for Executor's Plan and Variants. S is
// all about a step that decides which kernels run and how: the names of a shape are
// worked out once, since they are asked for before every token.
type Plans[S comparable] struct {
	name  func(S) []string
	names map[S][]string
	used  map[S]bool
}

// NewPlans returns one that names the kernels of a shape by a function, which may name
// them in any order and more than once.
func NewPlans[S comparable](name func(S) []string) Plans[S] {
	return Plans[S]{name, map[S][]string{}, map[S]bool{}}
}

// Of returns the names for a shape, sorted.
func (p Plans[S]) Of(s S) []string {
	names, ok := p.names[s]
	if !ok {
		names = p.name(s)
		slices.Sort(names)
		names = slices.Compact(names)
		p.names[s] = names
	}
	return names
}

// Use notes that a step of a shape runs.
func (p Plans[S]) Use(s S) { p.used[s] = true }

// Used returns the names for all shapes that have run, sorted.
func (p Plans[S]) Used() []string {
	var names []string
	for s := range p.used {
		names = append(names, p.Of(s)...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
