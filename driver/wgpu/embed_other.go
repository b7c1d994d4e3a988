//go:build (linux || darwin) && (amd64 || arm64) && !(linux && amd64)

package wgpu

import "errors"

// openEmbedded has nothing to load on this system.
func openEmbedded() (uintptr, error) {
	return 0, errors.New("this build embeds no library; set WGPU_NATIVE_PATH to one of wgpu-native v29")
}
