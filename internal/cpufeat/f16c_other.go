//go:build !amd64

package cpufeat

func hasF16C() bool { return false }
