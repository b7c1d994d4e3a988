//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"embed"
	"fmt"
	"hash/fnv"
	"io/fs"
	"strings"
	"sync"
	"text/template"

	driver "github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/tensor"
)

//go:embed shaders/*.wgsl
var shaderFiles embed.FS

// shaderTemplates are the shaders by file name, and the pieces they define.
var shaderTemplates = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{
		// float writes a number so that WGSL reads the same float32.
		"float": func(x float32) string { return fmt.Sprintf("f32(%.9e)", x) },
		"mul":   func(a, b int) int { return a * b },
	}).ParseFS(shaderFiles, "shaders/*.wgsl"))
})

// shaderHash identifies the shaders of this build.
var shaderHash = sync.OnceValue(func() uint64 {
	h := fnv.New64a()
	names, _ := fs.Glob(shaderFiles, "shaders/*.wgsl") // sorted; the pattern is good
	for _, name := range names {
		text, _ := shaderFiles.ReadFile(name) // embedded
		fmt.Fprintf(h, "%s %d\n%s", name, len(text), text)
	}
	return h.Sum64()
})

// settings are what a device's features allow and tests may restrict.
type settings struct {
	Subgroups bool // shaders may use subgroup operations
	F16       bool // shaders may calculate in half precision
	// Binding is the largest binding in bytes, Buffer the largest buffer.
	Binding, Buffer uint64
}

// gpu is an open device with the kernels compiled so far. Executors share it.
type gpu struct {
	*driver.Device
	settings
	mu        sync.Mutex
	pipelines map[string]*driver.Pipeline // by source
}

// pipeline returns the kernel that a shader becomes with the given sizes.
func (g *gpu) pipeline(shader string, sizes any, bindings ...driver.Access) (*driver.Pipeline, error) {
	var b strings.Builder
	if err := shaderTemplates().ExecuteTemplate(&b, shader+".wgsl", sizes); err != nil {
		return nil, fmt.Errorf("shader %s: %w", shader, err)
	}
	source := b.String()
	g.mu.Lock()
	defer g.mu.Unlock()
	if p, ok := g.pipelines[source]; ok {
		return p, nil
	}
	p, err := g.NewPipeline(driver.PipelineDesc{Name: shader, WGSL: source, Bindings: bindings})
	if err != nil {
		return nil, err
	}
	g.pipelines[source] = p
	return p, nil
}

// Short names for lists of bindings.
const (
	in  = driver.ReadOnly
	out = driver.ReadWrite
)

// format is the geometry of a tensor type as shaders take it.
type format struct {
	Type                    string
	BlockGroups, BlockBytes int // groups of 8 numbers, and bytes, of a block
	RowBytes                int
}

// plainGroup is the group of types without blocks, whose elements a shader reads
// eight at a time.
const plainGroup = 8

func formatOf(t tensor.DType, cols int) (format, error) {
	row, err := t.RowBytes(cols)
	if err != nil {
		return format{}, err
	}
	f := format{Type: t.String(), BlockGroups: t.BlockLen() / plainGroup, BlockBytes: t.BlockBytes(), RowBytes: row}
	if t.BlockLen() == 1 {
		f.BlockGroups, f.BlockBytes = 1, plainGroup*t.BlockBytes()
	}
	return f, nil
}
