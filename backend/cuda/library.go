package cuda

import (
	"bytes"
	"embed"
	"fmt"
	"hash/fnv"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/driver/cuda"
)

// ptx holds the kernels, compiled from the folder kernels by its gen.sh: a file
// NAME.TARGET.ptx for each source and target.
//
//go:generate kernels/gen.sh
//go:embed ptx/*.ptx
var ptx embed.FS

// image is one embedded file.
type image struct {
	file   string
	target int  // 80 for sm_80
	only   bool // sm_90a: for this capability alone
	waits  bool // the kernel has griddepcontrol.wait
	text   []byte
}

// runs reports whether a device of a compute capability takes the image.
func (i image) runs(capability int) bool {
	return i.target == capability || !i.only && i.target < capability
}

var entry = regexp.MustCompile(`(?m)^\.visible \.entry (\w+)\(`)

// images maps each kernel's name to the files that have it, best target first.
var images = sync.OnceValues(func() (map[string][]image, error) {
	files, err := fs.Glob(ptx, "ptx/*.ptx")
	if err != nil {
		return nil, err
	}
	all := map[string][]image{}
	for _, file := range files {
		text, err := ptx.ReadFile(file)
		if err != nil {
			return nil, err
		}
		_, target, ok := strings.Cut(strings.TrimSuffix(path.Base(file), ".ptx"), ".sm_")
		number, only := strings.CutSuffix(target, "a")
		n, err := strconv.Atoi(number)
		if !ok || err != nil {
			return nil, fmt.Errorf("%s: the name has no target", file)
		}
		places := entry.FindAllSubmatchIndex(text, -1)
		for i, p := range places {
			end := len(text)
			if i+1 < len(places) {
				end = places[i+1][0]
			}
			name := string(text[p[2]:p[3]])
			waits := bytes.Contains(text[p[0]:end], []byte("griddepcontrol.wait"))
			all[name] = append(all[name], image{file, n, only, waits, text})
		}
	}
	for _, list := range all {
		slices.SortFunc(list, func(a, b image) int {
			if a.target != b.target {
				return b.target - a.target
			}
			return strings.Compare(b.file, a.file)
		})
	}
	return all, nil
})

// ptxHash changes with any kernel.
var ptxHash = sync.OnceValue(func() uint64 {
	h := fnv.New64a()
	files, _ := fs.Glob(ptx, "ptx/*.ptx") // the pattern is right
	for _, file := range files {
		text, _ := ptx.ReadFile(file)
		fmt.Fprintln(h, file, len(text))
		h.Write(text)
	}
	return h.Sum64()
})

// library compiles kernels for one context when they are first wanted. The driver
// does it, at some 40 ms a kernel unless it has done it before, for whole files.
type library struct {
	c         *cuda.Context
	modules   map[string]cuda.Module // by file
	functions map[string]cuda.Function
}

func newLibrary(c *cuda.Context) *library {
	return &library{c, map[string]cuda.Module{}, map[string]cuda.Function{}}
}

// find is function for those who know the file too.
func (l *library) find(_, kernel string) (cuda.Function, error) { return l.function(kernel) }

// waits reports whether a kernel, in the file that is used, waits for the one
// before it (griddepcontrol.wait); code for older targets does not.
func (l *library) waits(kernel string) bool {
	all, err := images()
	if err != nil {
		return false
	}
	for _, i := range all[kernel] {
		if i.runs(l.c.Device.Capability()) {
			return i.waits
		}
	}
	return false
}

// has reports whether the device has a kernel.
func (l *library) has(kernel string) bool {
	all, err := images()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(all[kernel], func(i image) bool { return i.runs(l.c.Device.Capability()) })
}

// function finds a kernel in the best file for the device.
func (l *library) function(kernel string) (cuda.Function, error) {
	if f, ok := l.functions[kernel]; ok {
		return f, nil
	}
	all, err := images()
	if err != nil {
		return 0, err
	}
	for _, i := range all[kernel] {
		if !i.runs(l.c.Device.Capability()) {
			continue
		}
		m, err := l.module(i)
		if err != nil {
			return 0, err
		}
		f, err := l.c.Function(m, kernel)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", i.file, err)
		}
		l.functions[kernel] = f
		return f, nil
	}
	return 0, fmt.Errorf("%w: kernel %s for compute capability %d", backend.ErrUnsupported, kernel, l.c.Device.Capability())
}

func (l *library) module(i image) (cuda.Module, error) {
	if m, ok := l.modules[i.file]; ok {
		return m, nil
	}
	m, _, err := l.c.LoadModule(bytes.Clone(i.text))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", i.file, err)
	}
	l.modules[i.file] = m
	return m, nil
}

// launch prepares a kernel.
func (l *library) launch(kernel string, grid [3]int, threads, shared int, args ...any) (*cuda.Launch, error) {
	grid[1], grid[2] = max(grid[1], 1), max(grid[2], 1)
	return prepare(l.find, l.c, "", kernel, grid, threads, shared, args...)
}
