//go:build linux && amd64

package wgpu

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/parity"
)

// loseEnv names, in a process of its own, the Vulkan function that will fail. The layer
// testdata/lossy.c reads it and the two others.
const loseEnv = "APR_TEST_LOSE_CALL"

// tag begins a rejection's line.
const tag = "[apr-cpu-vs-gpu-output-parity-v1] wgpu path rejected, attempting fallback: "

// A device that is lost, or out of memory, where the library answers with a panic: in a
// submission or while it waits, before a model serves or in the middle of an answer. A
// tagged line says so, the CPU gives the whole answer, and the process ends as it should.
func TestLostInsideTheLibrary(t *testing.T) {
	if os.Getenv(loseEnv) != "" {
		answerInSpiteOfLoss(t)
		return
	}
	software := needAdapter(t).Info().Software
	layers := buildLayer(t)
	const deviceLost, outOfMemory = "-4", "-2" // VkResult
	for _, tt := range []struct {
		call, result string
		after        string // calls that succeed
		where        string // in the line
	}{
		{"vkQueueSubmit", deviceLost, "0", "inside wgpuQueueSubmit"},
		{"vkQueueSubmit", deviceLost, "30", "inside wgpuQueueSubmit"},
		{"vkQueueSubmit", outOfMemory, "30", "inside wgpuQueueSubmit"},
		{"vkGetSemaphoreCounterValue", deviceLost, "40", "inside wgpu"},
		{"vkWaitSemaphores", deviceLost, "30", "inside wgpuDevicePoll"},
		{"vkWaitSemaphores", outOfMemory, "30", "inside wgpuDevicePoll"},
		{"vkAllocateMemory", outOfMemory, "0", "memory"}, // told without a panic
	} {
		if testing.Short() && tt.result != deviceLost {
			continue
		}
		t.Run(tt.call+" "+tt.result+" after "+tt.after, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run", "^TestLostInsideTheLibrary$", "-test.v")
			cmd.Env = append(os.Environ(), "VK_LAYER_PATH="+layers, "VK_INSTANCE_LAYERS=VK_LAYER_APR_lossy",
				loseEnv+"="+tt.call, "APR_TEST_LOSE_RESULT="+tt.result, "APR_TEST_LOSE_AFTER="+tt.after)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if !strings.Contains(string(out), "lossy: the call fails") {
				if !software {
					t.Skip("the library makes this call too seldom on this GPU: it makes it on lavapipe, in CI")
				}
				t.Fatalf("nothing has failed: %s", out)
			}
			var lines []string
			_, text, _ := strings.Cut(string(out), linesMark)
			if err := json.NewDecoder(strings.NewReader(text)).Decode(&lines); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if n := len(lines); n < 2 || lines[n-1] != "Backend: CPU" || !strings.HasPrefix(lines[n-2], tag) || !strings.Contains(lines[n-2], tt.where) {
				t.Errorf("lines %q, want a rejection with %q and then the CPU", lines, tt.where)
			}
		})
	}
}

// linesMark comes before the lines that a process of its own prints as JSON.
const linesMark = "lines on stderr: "

// buildLayer builds the layer and returns its folder.
func buildLayer(t *testing.T) string {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("no C compiler for the layer that loses the device: CI has one: %v", err)
	}
	dir := t.TempDir()
	if out, err := exec.Command(cc, "-Wall", "-O", "-shared", "-fPIC", "-o", filepath.Join(dir, "lossy.so"), "testdata/lossy.c").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const manifest = `{"file_format_version": "1.1.2", "layer": {"name": "VK_LAYER_APR_lossy", "type": "GLOBAL",
		"library_path": "./lossy.so", "api_version": "1.3.0", "implementation_version": "1", "description": "loses the device"}}`
	if err := os.WriteFile(filepath.Join(dir, "lossy.json"), []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// hardware is the backend with its software renderers said to be none, so that they are
// chosen without being named, and replaced when they fail.
type hardware struct{ wgpu }

type hardwareDevice struct{ *device }

func (d hardwareDevice) Info() backend.Info {
	i := d.device.Info()
	i.Software = false
	return i
}

func (h hardware) Probe() ([]backend.Device, error) {
	list, err := h.wgpu.Probe()
	for i, d := range list {
		list[i] = hardwareDevice{d.(*device)}
	}
	return list, err
}

// answerInSpiteOfLoss compares the answer of the chain with that of the CPU and prints
// the chain's lines.
func answerInSpiteOfLoss(t *testing.T) {
	backend.Register(hardware{wgpu{name: Name}})
	want, _ := answerOf(t, engine.Options{NoGPU: true})
	got, lines := answerOf(t, engine.Options{})
	if got != want {
		t.Errorf("%q, want %q", got, want)
	}
	text, err := json.Marshal(lines)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("%s%s\n", linesMark, text)
}

// answerOf generates some tokens with a bundled model.
func answerOf(t *testing.T, o engine.Options) (text string, lines []string) {
	t.Helper()
	m, err := engine.LoadModel(golden.Path(t, "models", "tiny-coder-4m-q4_k_m.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	o.Gate.Policy = parity.Standard()
	o.Gate.Policy.Probe.Deadline = 10 * time.Minute // a CPU that plays a device is no slow device
	o.Gate.Notify = func(d engine.Decision) {
		if d.Line != "" {
			lines = append(lines, d.Line)
		}
	}
	e, err := engine.Open(m, o)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	s, err := e.NewSession(100)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r, err := s.Generate(context.Background(), engine.Request{Prompt: m.TextPrompt("package main"), MaxTokens: 60, IgnoreEOS: true})
	if err != nil {
		t.Fatal(err)
	}
	return r.Text, lines
}
