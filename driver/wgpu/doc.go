// Package wgpu drives graphics processors through wgpu-native v29, the C face
// of the Rust library wgpu: compute only, found at run time through purego, so
// that the binary is built without a C compiler. It does no arithmetic and has
// no policy; backend/wgpu has both.
//
// Nothing is unpacked, opened or initialised before the first call of Adapters.
//
// The library is the embedded libwgpu_native.so.gz on linux/amd64, or the file
// that the environment variable WGPU_NATIVE_PATH names. README.md says how the
// embedded one was made and under which licence.
//
// wgpu-native calls abort where it does not know better: when it is given an invalid
// command buffer, or finds the device lost where it cannot say so. Every call that can
// fail runs in error scopes, a command buffer is submitted only if recording it gave no
// error, and a device that has failed once is never used again: all its methods then
// return the first error. What aborts all the same is a lost device on linux/amd64
// (guard.go) and the end of the process elsewhere.
package wgpu
