//go:build amd64 && !noasm

package kernel

// pause is a call that does nothing: without assembly there is no portable hint.
//
//go:noinline
func pause() {}
