// Package cuda runs programs on NVIDIA GPUs through the CUDA driver alone.
package cuda

import "embed"

// ptx holds the kernels, compiled from the folder kernels by kernels/gen.sh.
//
//go:generate kernels/gen.sh
//go:embed ptx/*.ptx
var ptx embed.FS
