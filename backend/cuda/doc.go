// Package cuda runs programs on NVIDIA GPUs through the CUDA driver alone: no cgo
// and no CUDA toolkit. Kernels are in the folder kernels, compiled to PTX
// beforehand (folder ptx) and embedded.
//
// A program is compiled twice: operation by operation, which serves batches and
// traces, and with operations fused for steps of few tokens. Such a step is
// captured as a CUDA graph when its shape first occurs, and that graph is what
// runs, the first time too: what the parity gate has probed is what serves. All
// that changes from step to step lies in device memory; see stepData.
package cuda
