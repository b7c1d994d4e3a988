//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"embed"
	"fmt"
	"hash/fnv"
	"io/fs"
	"runtime"
	"strings"
	"sync"
	"text/template"

	"github.com/apr-engine/apr/backend/wgpu/kernels"
	driver "github.com/apr-engine/apr/driver/wgpu"
)

//go:embed shaders/*.wgsl
var shaderFiles embed.FS

// shaderTemplates are the shaders by file name, and the pieces they define.
var shaderTemplates = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{
		// float writes a number so that WGSL reads the same float32.
		"float": func(x float32) string { return fmt.Sprintf("f32(%.9e)", x) },
		"mul":   func(a, b int) int { return a * b },
		"div":   func(a, b int) int { return a / b },
		"seq": func(n int) []int {
			list := make([]int, n)
			for i := range list {
				list[i] = i
			}
			return list
		},
	}).ParseFS(shaderFiles, "shaders/*.wgsl"))
})

// shaderHash identifies the shaders of this build, those of package kernels too.
var shaderHash = sync.OnceValue(func() uint64 {
	h := fnv.New64a()
	names, _ := fs.Glob(shaderFiles, "shaders/*.wgsl") // sorted; the pattern is good
	for _, name := range names {
		text, _ := shaderFiles.ReadFile(name) // embedded
		fmt.Fprintf(h, "%s %d\n%s", name, len(text), text)
	}
	fmt.Fprintf(h, "%016x", kernels.Hash())
	return h.Sum64()
})

// settings are what a device's features allow and tests may restrict.
type settings struct {
	Subgroups bool // shaders may use subgroup operations
	F16       bool // shaders may calculate in half precision
	Checked   bool // no shader does without the tests of indices
	Unfused   bool // every operation has kernels of its own
	// Binding is the largest binding in bytes, Buffer the largest buffer.
	Binding, Buffer uint64
}

// gpu is an open device with the kernels compiled so far. Executors share it.
type gpu struct {
	*driver.Device
	settings
	caps      kernels.Device
	mu        sync.Mutex // guards what follows
	pipelines map[pipelineKey]*driver.Pipeline
	// pending are those not compiled yet.
	pending map[pipelineKey]*driver.Pipeline
}

func newGPU(d *driver.Device, s settings) *gpu {
	return &gpu{
		Device: d, settings: s, caps: kernels.DeviceOf(d.Info),
		pipelines: map[pipelineKey]*driver.Pipeline{}, pending: map[pipelineKey]*driver.Pipeline{},
	}
}

// compilers is how many shaders are compiled at once: each takes a processor and some
// ten megabytes.
func compilers() int { return min(runtime.GOMAXPROCS(0), 16) }

type pipelineKey struct {
	source    string
	unchecked bool
}

// pipeline returns the kernel that a shader becomes with the given sizes.
func (g *gpu) pipeline(shader string, sizes any, bindings ...driver.Access) (*driver.Pipeline, error) {
	var b strings.Builder
	if err := shaderTemplates().ExecuteTemplate(&b, shader+".wgsl", sizes); err != nil {
		return nil, fmt.Errorf("shader %s: %w", shader, err)
	}
	return g.compiled(driver.PipelineDesc{Name: shader, WGSL: b.String(), Bindings: bindings})
}

// compiled returns a shader's pipeline, once a device, to be bound. It is compiled by settle,
// which whoever dispatches it calls first.
func (g *gpu) compiled(desc driver.PipelineDesc) (*driver.Pipeline, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := pipelineKey{desc.WGSL, desc.Unchecked}
	if p, ok := g.pipelines[key]; ok {
		return p, nil
	}
	p, err := g.Layout(desc)
	if err != nil {
		return nil, err
	}
	g.pipelines[key], g.pending[key] = p, p
	return p, nil
}

// settle compiles all pipelines asked for, on all processors, and returns an error of any
// that could not be, which are forgotten.
func (g *gpu) settle() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var keys []pipelineKey
	var list []*driver.Pipeline
	for key, p := range g.pending {
		keys, list = append(keys, key), append(list, p)
	}
	clear(g.pending)
	var first error
	for i, err := range g.CompileAll(list, compilers()) {
		if err == nil {
			continue
		}
		delete(g.pipelines, keys[i])
		if first == nil || err.Error() < first.Error() { // the same every time
			first = err
		}
	}
	return first
}

// Short names for lists of bindings.
const (
	in  = driver.ReadOnly
	out = driver.ReadWrite
)
