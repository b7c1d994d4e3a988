package kernels

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apr-engine/apr/driver/wgpu"
)

// TestBenchFiles times the shaders in the files *.wgsl of the folder APR_WGPU_WGSL, so
// that variants can be compared on a GPU without building the program anew. A file is
// a candidate: kernels that run one after the other. Lines that begin with //! say what
// is bound to them:
//
//	//! buffer NAME BYTES random|zero|step:POSITION|tokens:COUNT|words:A,B,… [COPIES]
//	//! kernel GRID,GRID,GRID BUFFER,BUFFER,… [FLOP BYTES]
//
// A kernel's text follows its line. Buffers whose name ends in ! are written. Copies of a buffer
// take turns, so that no cache holds them. Files that share the part of their name before the first dash are
// measured in turns.
func TestBenchFiles(t *testing.T) {
	folder := os.Getenv("APR_WGPU_WGSL")
	if folder == "" {
		t.Skip("a measurement that nothing can fail: set APR_WGPU_WGSL to a folder of shaders")
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.wgsl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no shaders in %s: %v", folder, err)
	}
	r := newRig(t, wgpu.Features{F16: true, Subgroups: true, Timestamps: true})
	b := &bench{rig: r, dev: r.device(), pools: map[int]*wgpu.Buffer{}}
	if r.d.Features.Timestamps {
		if b.timer, err = r.d.NewTimer(2); err != nil {
			t.Fatal(err)
		}
	}
	groups := map[string][]string{}
	for _, f := range files {
		key, _, _ := strings.Cut(filepath.Base(f), "-")
		groups[key] = append(groups[key], f)
	}
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		b.buffers = map[string][]*wgpu.Buffer{}
		var list []candidate
		for _, f := range groups[key] {
			c, err := b.file(f)
			if err != nil {
				fmt.Printf("%s: %v\n", filepath.Base(f), err)
				continue
			}
			list = append(list, c)
		}
		b.compare(list...)
		for _, same := range b.buffers {
			for _, buf := range same {
				buf.Release()
			}
		}
	}
}

// file reads a candidate. Buffers of the same name and size are shared with others.
func (b *bench) file(path string) (candidate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return candidate{}, err
	}
	x := candidate{name: strings.TrimSuffix(filepath.Base(path), ".wgsl")}
	named := map[string][]*wgpu.Buffer{}
	var kernels []Kernel
	var binds [][]string
	turns := 1
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		switch {
		case len(f) >= 5 && f[0] == "//!" && f[1] == "buffer":
			n, err := strconv.Atoi(f[3])
			if err != nil {
				return x, err
			}
			count := 1
			if len(f) > 5 {
				if count, err = strconv.Atoi(f[5]); err != nil {
					return x, err
				}
			}
			key := strings.Join(f[2:], " ")
			for i := len(b.buffers[key]); i < count; i++ {
				buf, err := b.filled(n, f[4])
				if err != nil {
					return x, err
				}
				b.buffers[key] = append(b.buffers[key], buf)
			}
			named[f[2]] = b.buffers[key]
			turns = max(turns, count)
		case len(f) >= 4 && f[0] == "//!" && f[1] == "kernel":
			k := Kernel{Name: x.name, Unchecked: true}
			for i, s := range strings.Split(f[2], ",") {
				if k.Grid[i], err = strconv.Atoi(s); err != nil {
					return x, err
				}
			}
			names := strings.Split(f[3], ",")
			for i, s := range names {
				a := wgpu.ReadOnly
				if strings.HasSuffix(s, "!") {
					a = wgpu.ReadWrite
				}
				names[i] = strings.TrimSuffix(s, "!")
				k.Bindings = append(k.Bindings, Binding{names[i], a})
			}
			if len(f) > 5 {
				x.flop, _ = strconv.ParseFloat(f[4], 64)
				x.bytes, _ = strconv.Atoi(f[5])
			}
			kernels, binds = append(kernels, k), append(binds, names)
		case len(kernels) > 0:
			kernels[len(kernels)-1].WGSL += line
		}
	}
	var pipelines []*wgpu.Pipeline
	var compiled []time.Duration
	for _, k := range kernels {
		start := time.Now()
		p, err := b.d.NewPipeline(k.Desc(false))
		if err != nil {
			return x, err
		}
		b.t.Cleanup(p.Release)
		pipelines, compiled = append(pipelines, p), append(compiled, time.Since(start))
	}
	for turn := range turns {
		for i, k := range kernels {
			var list []wgpu.Binding
			for _, name := range binds[i] {
				same := named[name]
				if len(same) == 0 {
					return x, fmt.Errorf("no buffer %s", name)
				}
				list = append(list, wgpu.Whole(same[turn%len(same)]))
			}
			g, err := b.d.NewGroup(pipelines[i], list...)
			if err != nil {
				return x, err
			}
			b.t.Cleanup(g.Release)
			x.list = append(x.list, ready{k, pipelines[i], g, compiled[i]})
		}
	}
	return x, nil
}

// filled makes a buffer of n bytes with contents as TestBenchFiles says.
func (b *bench) filled(n int, how string) (*wgpu.Buffer, error) {
	kind, arg, _ := strings.Cut(how, ":")
	var numbers []int
	for _, s := range strings.FieldsFunc(arg, func(r rune) bool { return r == ',' }) {
		v, err := strconv.Atoi(s)
		if err != nil {
			return nil, err
		}
		numbers = append(numbers, v)
	}
	switch kind {
	case "random":
		return b.fill(n), nil
	case "zero":
		return b.empty(n), nil
	case "step":
		return buffer(b.rig, step(numbers...)), nil
	case "tokens":
		positions := make([]int, numbers[0])
		for i := range positions {
			positions[i] = i
		}
		return buffer(b.rig, step(positions...)), nil
	case "words":
		words := make([]uint32, max(n/4, len(numbers)))
		for i, v := range numbers {
			words[i] = uint32(v)
		}
		return buffer(b.rig, words), nil
	}
	return nil, fmt.Errorf("buffer contents %q", how)
}
