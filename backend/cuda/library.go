package cuda

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/driver/cuda"
)

// ptx holds the kernels, compiled from the folder kernels by its gen.sh: a file
// NAME.TARGET.ptx for each source and target.
//
//go:generate kernels/gen.sh
//go:embed ptx/*.ptx
var ptx embed.FS

// image is one kernel of an embedded file.
type image struct {
	file   string
	target int    // 80 for sm_80
	only   bool   // sm_90a: for this capability alone
	waits  bool   // the kernel has griddepcontrol.wait
	head   []byte // what all kernels of the file share: version, target, declarations
	body   []byte
}

// runs reports whether a device of a compute capability takes the image.
func (i image) runs(capability int) bool {
	return i.target == capability || !i.only && i.target < capability
}

// family is which kernels an image is compiled with: all of its version and target that
// declare nothing which could clash.
func (i image) family() string {
	var head []byte
	for line := range bytes.Lines(i.head) {
		word, _, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		switch string(word) {
		case ".version", ".target":
			head = append(head, line...)
		case "", "//", ".address_size", ".extern":
		default:
			return string(i.body)
		}
	}
	return string(head)
}

// moduleOf is the text of a module of kernels of one family.
func moduleOf(images ...image) []byte {
	var text []byte
	for n, i := range images {
		for line := range bytes.Lines(i.head) {
			if n == 0 || bytes.HasPrefix(line, []byte(".extern")) && !bytes.Contains(text, line) {
				text = append(text, line...)
			}
		}
	}
	for _, i := range images {
		text = append(text, i.body...)
	}
	return text
}

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
		head, kernels, err := entries(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for name, body := range kernels {
			all[name] = append(all[name], image{file, n, only, bytes.Contains(body, []byte("griddepcontrol.wait")), head, body})
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

// entries cuts PTX into its kernels and what lies before, between and after them. An
// entry of gen.sh's output begins and ends in the first column.
func entries(text []byte) (head []byte, kernels map[string][]byte, err error) {
	begin, end := []byte("\n.visible .entry "), []byte("\n}\n")
	kernels = map[string][]byte{}
	for {
		at := bytes.Index(text, begin)
		if at < 0 {
			return append(head, text...), kernels, nil
		}
		head = append(head, text[:at+1]...)
		text = text[at+1:]
		name, _, ok := bytes.Cut(text[len(begin)-1:], []byte("("))
		stop := bytes.Index(text, end)
		if !ok || stop < 0 {
			return nil, nil, errors.New("an entry without an end")
		}
		kernels[string(name)] = text[:stop+len(end)]
		text = text[stop+len(end)-1:] // from the newline on
	}
}

// ptxHash changes with any kernel.
var ptxHash = sync.OnceValue(func() uint64 {
	h := sha256.New()                     // faster than smaller ones, which take a byte at a time
	files, _ := fs.Glob(ptx, "ptx/*.ptx") // the pattern is right
	for _, file := range files {
		text, _ := ptx.ReadFile(file)
		fmt.Fprintln(h, file, len(text))
		h.Write(text)
	}
	return binary.BigEndian.Uint64(h.Sum(nil))
})

// library has the kernels of one context. Only those that a model uses are compiled, at
// some 150 ms each unless the driver has done it before: a family of them as one module,
// which newer drivers compile on all processors; what comes later, one by one. Several
// modules at a time gain nothing: a context compiles one after the other.
type library struct {
	c     *cuda.Context
	best  map[string]image // by kernel, for the device
	mu    sync.Mutex       // guards loads
	loads map[string]*loading
	// listed, if not nil, takes the names of kernels instead of loading them.
	listed map[string]bool
}

// loading is a kernel that is there once done is closed.
type loading struct {
	done chan struct{}
	f    cuda.Function
	err  error
}

func newLibrary(c *cuda.Context) (*library, error) {
	all, err := images()
	if err != nil {
		return nil, err
	}
	l := &library{c: c, best: map[string]image{}, loads: map[string]*loading{}}
	for name, list := range all {
		if i := slices.IndexFunc(list, func(i image) bool { return i.runs(c.Device.Capability()) }); i >= 0 {
			l.best[name] = list[i]
		}
	}
	return l, nil
}

// find is function for those who know the file too.
func (l *library) find(_, kernel string) (cuda.Function, error) { return l.function(kernel) }

// waits reports whether a kernel, in the file that is used, waits for the one
// before it (griddepcontrol.wait); code for older targets does not.
func (l *library) waits(kernel string) bool { return l.best[kernel].waits }

// has reports whether the device has a kernel.
func (l *library) has(kernel string) bool {
	_, ok := l.best[kernel]
	return ok
}

// function returns a kernel, loading it or waiting for who does. While kernels are
// listed it is 0.
func (l *library) function(kernel string) (cuda.Function, error) {
	if l.listed != nil {
		l.listed[kernel] = true
		return 0, nil
	}
	l.mu.Lock()
	k, known := l.loads[kernel]
	if !known {
		k = &loading{done: make(chan struct{})}
		l.loads[kernel] = k
	}
	l.mu.Unlock()
	if !known {
		l.load(map[string]*loading{kernel: k})
	}
	<-k.done
	return k.f, k.err
}

// load has the driver compile kernels of one family.
func (l *library) load(kernels map[string]*loading) {
	names := slices.Sorted(maps.Keys(kernels))
	list := make([]image, len(names))
	for n, name := range names {
		i, ok := l.best[name]
		if !ok {
			kernels[name].end(0, fmt.Errorf("%w: kernel %s for compute capability %d", backend.ErrUnsupported, name, l.c.Device.Capability()))
			return // asked for alone: start leaves these out
		}
		list[n] = i
	}
	m, _, err := l.c.LoadModule(moduleOf(list...), true)
	if err != nil && len(names) > 1 {
		// One by one, to find out which it is.
		for name, k := range kernels {
			l.load(map[string]*loading{name: k})
		}
		return
	}
	for n, name := range names {
		if err != nil {
			kernels[name].end(0, fmt.Errorf("%s: kernel %s: %w", list[n].file, name, err))
			continue
		}
		f, err := l.c.Function(m, name)
		if err != nil {
			err = fmt.Errorf("%s: %w", list[n].file, err)
		}
		kernels[name].end(f, err)
	}
}

func (k *loading) end(f cuda.Function, err error) {
	k.f, k.err = f, err
	close(k.done)
}

// start begins to load kernels and returns at once; the caller, inside the context's Do,
// calls wait before it leaves, which says how long it took. step is told of each module.
func (l *library) start(kernels []string, step func() error) (wait func() (time.Duration, error)) {
	begun := time.Now()
	families := map[string]map[string]*loading{}
	l.mu.Lock()
	for _, name := range kernels {
		i, ok := l.best[name]
		if !ok || l.loads[name] != nil {
			continue // whoever asks for it is told
		}
		k := &loading{done: make(chan struct{})}
		l.loads[name] = k
		if families[i.family()] == nil {
			families[i.family()] = map[string]*loading{}
		}
		families[i.family()][name] = k
	}
	l.mu.Unlock()
	var took time.Duration
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := l.c.Beside(func() error {
			for _, name := range slices.Sorted(maps.Keys(families)) {
				l.load(families[name])
				_ = step() // what is left is needed by whoever waits
			}
			return nil
		})
		took = time.Since(begun)
		if err == nil {
			return
		}
		for _, family := range families { // none has been looked at
			for _, k := range family {
				k.end(0, err)
			}
		}
	}()
	return func() (time.Duration, error) {
		<-done
		for _, name := range kernels {
			if _, err := l.function(name); err != nil {
				return took, err
			}
		}
		return took, nil
	}
}

// launch prepares a kernel.
func (l *library) launch(kernel string, grid [3]int, threads, shared int, args ...any) (*cuda.Launch, error) {
	grid[1], grid[2] = max(grid[1], 1), max(grid[2], 1)
	return prepare(l.find, l.c, "", kernel, grid, threads, shared, args...)
}
