//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Driver identifies the Vulkan loader and the drivers that it would find by paths,
// sizes and times of their files, and by what the kernel tells about NVIDIA's. On
// other systems drivers are part of the system, whose version is not asked.
func (wgpu) Driver() string {
	if runtime.GOOS != "linux" {
		return ""
	}
	var patterns []string
	for _, env := range []string{"VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_ADD_DRIVER_FILES"} {
		patterns = append(patterns, filepath.SplitList(os.Getenv(env))...)
	}
	patterns = append(patterns, os.Getenv("WGPU_NATIVE_PATH"))
	for _, dir := range []string{"/etc", "/usr/share", "/usr/local/share", "/usr/local/etc", "/usr/local/nvidia/share"} {
		patterns = append(patterns, filepath.Join(dir, "vulkan", "icd.d", "*.json"))
	}
	for _, dir := range []string{"/usr/lib", "/usr/lib64", "/usr/lib/*-linux-gnu", "/usr/local/lib", "/usr/local/nvidia/lib64"} {
		for _, lib := range []string{"libvulkan.so*", "libvulkan_*.so", "libGLX_nvidia.so*", "libnvidia-vulkan-producer.so*"} {
			patterns = append(patterns, filepath.Join(dir, lib))
		}
	}
	return describeFiles(patterns) + nvidiaVersion("/proc/driver/nvidia/version")
}

// describeFiles hashes the paths, sizes and times of all files that match.
func describeFiles(patterns []string) string {
	var files []string
	for _, p := range patterns {
		found, _ := filepath.Glob(p) // the patterns are ours; a bad one from outside matches nothing
		files = append(files, found...)
	}
	slices.Sort(files)
	h := fnv.New64a()
	files = slices.Compact(files)
	for _, f := range files {
		if s, err := os.Stat(f); err == nil {
			fmt.Fprintf(h, "%s %d %d\n", f, s.Size(), s.ModTime().UnixNano())
		}
	}
	return fmt.Sprintf("%d Vulkan files %016x", len(files), h.Sum64())
}

// nvidiaVersion is the first line of what NVIDIA's kernel module tells.
func nvidiaVersion(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return ", " + strings.Join(strings.Fields(line), " ")
}
