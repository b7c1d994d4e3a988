// emu_run.h: how the fake driver runs kernels.
#pragma once
namespace emu {
// run executes a grid. It returns what a kernel did wrong, or null.
const char *run(const Kernel &k, dim3 grid, dim3 block, size_t shared, void *args);
} // namespace emu
