// Package wgpu runs programs on any graphics processor that wgpu-native drives:
// WGSL compute shaders over Vulkan, Metal or DX12. Weights stay quantised on the
// device, and so do keys, values and everything between two steps; a step is one
// command buffer, after which the wanted logits are read back.
//
// Every shape has kernels of its own, made from the templates in shaders by
// putting in sizes as constants. Programs, tensor types and options that it
// cannot run are refused by Load. docs/wgpu.md describes the shaders, the layouts
// and how limits and features are handled.
package wgpu
