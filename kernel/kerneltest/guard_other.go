//go:build !unix

package kerneltest

import "testing"

// Place says where a slice lies within its mapping.
type Place int

// Both places are the same where pages cannot be protected.
const (
	AtEnd Place = iota
	AtStart
)

// Slice returns n zero elements; this system has no guard pages here.
func Slice[T any](_ testing.TB, n int, _ Place) []T { return make([]T, n) }
