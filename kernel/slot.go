// Package kernel holds the CPU kernels: for each a plain Go version that is the
// definition, assembly variants, and the slot that picks one at start-up.
package kernel

import (
	"slices"

	"github.com/apr-engine/apr/internal/cpufeat"
)

// Here and not in a file of arm64, which go generate passes over on other machines:
//
//go:generate go run -C _asm ./neon

// slot is one kernel with its implementations, all with the same signature and
// contract. The plain Go version is always present; the highest level that the
// CPU runs is active. Callers go through active, so a slot can be switched.
type slot[F any] struct {
	name     string
	active   F
	level    cpufeat.Level // of active
	variants []variant[F]  // ascending level; variants[0] is plain Go
	barred   bool          // the self-test found a variant wrong: plain Go only
}

type variant[F any] struct {
	level cpufeat.Level
	fn    F
}

// switchable is what the package needs of a slot without knowing its signature.
type switchable interface {
	Name() string
	Levels() []cpufeat.Level
	Active() cpufeat.Level
	use(max cpufeat.Level)
	bar()
}

// slots lists every kernel, in order of declaration.
var slots []switchable

// newSlot declares a kernel with its plain Go version.
func newSlot[F any](name string, generic F) *slot[F] {
	s := &slot[F]{name: name, active: generic, variants: []variant[F]{{cpufeat.Generic, generic}}}
	slots = append(slots, s)
	return s
}

// add registers a variant; it becomes active if the CPU can run it and it is
// the highest so far. Call it from an init function in <op>_amd64.go.
func (s *slot[F]) add(level cpufeat.Level, fn F) {
	s.variants = append(s.variants, variant[F]{level, fn})
	slices.SortFunc(s.variants, func(a, b variant[F]) int { return int(a.level - b.level) })
	s.use(cpufeat.Best())
}

// generic is the plain Go version, the definition of the kernel.
func (s *slot[F]) generic() F { return s.variants[0].fn }

// bar limits the slot to plain Go for the rest of the process.
func (s *slot[F]) bar() {
	s.barred = true
	s.use(cpufeat.Generic)
}

// use activates the highest variant not above max; in a barred slot, plain Go.
func (s *slot[F]) use(max cpufeat.Level) {
	if s.barred {
		max = cpufeat.Generic
	}
	for _, v := range s.variants {
		if v.level <= min(max, cpufeat.Hardware()) {
			s.active, s.level = v.fn, v.level
		}
	}
}

// Name is the kernel's name, for example "matvec/q4_k/i16".
func (s *slot[F]) Name() string { return s.name }

// Levels lists the levels that have a variant, ascending.
func (s *slot[F]) Levels() []cpufeat.Level {
	out := make([]cpufeat.Level, len(s.variants))
	for i, v := range s.variants {
		out[i] = v.level
	}
	return out
}

// Active is the level in use.
func (s *slot[F]) Active() cpufeat.Level { return s.level }

// Use activates, in every kernel, the highest variant not above max, and
// returns a function that restores what was active before. It is for tests and
// for measuring; it must not run beside kernels in use.
func Use(max cpufeat.Level) (restore func()) {
	before := make([]cpufeat.Level, len(slots))
	for i, s := range slots {
		before[i] = s.Active()
		s.use(max)
	}
	return func() {
		for i, s := range slots {
			s.use(before[i])
		}
	}
}

// Variant names the active implementation of one kernel.
type Variant struct {
	Kernel string
	Level  cpufeat.Level
}

// Variants lists the active implementation of every kernel.
func Variants() []Variant {
	out := make([]Variant, len(slots))
	for i, s := range slots {
		out[i] = Variant{s.Name(), s.Active()}
	}
	return out
}
