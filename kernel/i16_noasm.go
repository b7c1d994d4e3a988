//go:build noasm || (!amd64 && !arm64)

package kernel

// registerI16Variants adds nothing here: plain Go only.
func registerI16Variants() {}
