package backend

import (
	"slices"
	"testing"
)

func TestPlans(t *testing.T) {
	asked := 0
	p := NewPlans(func(n int) []string {
		asked++
		return []string{"b", "a", "b", string(rune('c' + n))}
	})
	for range 3 {
		if got := p.Of(1); !slices.Equal(got, []string{"a", "b", "d"}) {
			t.Errorf("names %v", got)
		}
	}
	if asked != 1 {
		t.Errorf("worked out %d times, want once", asked)
	}
	if got := p.Used(); len(got) != 0 {
		t.Errorf("used before any step: %v", got)
	}
	p.Use(1)
	p.Use(5)
	if got := p.Used(); !slices.Equal(got, []string{"a", "b", "d", "h"}) {
		t.Errorf("used %v", got)
	}
}
