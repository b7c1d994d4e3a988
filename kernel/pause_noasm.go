//go:build noasm || !amd64

package kernel

// pause is a call that does nothing: without assembly there is no portable hint.
//
//go:noinline
func pause() {}

func prefetchPages(*byte, int) {}
