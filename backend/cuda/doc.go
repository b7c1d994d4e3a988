// Package cuda runs programs on an NVIDIA GPU through its driver alone: no cgo, no
// CUDA toolkit. The kernels are in kernels, compiled to PTX beforehand (ptx).
package cuda
