package apr_test

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/apr-engine/apr/internal/cli/apr"
)

// gpuLibraries are what drivers of GPUs map into a process.
var gpuLibraries = regexp.MustCompile(`(?i)lib(cuda|nvidia|vulkan|wgpu|nvrtc|nccl|EGL|GLX)`)

// With --no-gpu the process maps no GPU library, whatever this build could open.
func TestNoGPULibraryIsOpened(t *testing.T) {
	t.Setenv("APR_CERT_DIR", t.TempDir())
	var out strings.Builder
	model := filepath.Join(repository, "models", "tiny-coder-4m-q4_k_m.gguf")
	code := apr.Main([]string{"run", model, "What is 2+2?", "--no-gpu"}, strings.NewReader(""), &out, io.Discard)
	if code != 0 || out.String() != "2 + 2 equals 4.\n" {
		t.Fatalf("exit code %d, %q", code, out.String())
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Skipf("no memory map: %v", err)
	}
	if found := gpuLibraries.Find(maps); found != nil {
		t.Errorf("%s is mapped", found)
	}
	if !gpuLibraries.MatchString("7f00 r-xp /usr/lib/x86_64-linux-gnu/libcuda.so.1") {
		t.Error("the test would not see a library")
	}
}
