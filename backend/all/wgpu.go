//go:build !nowgpu && (linux || darwin) && (amd64 || arm64)

package all

import _ "github.com/apr-engine/apr/backend/wgpu" // GPUs through WebGPU
