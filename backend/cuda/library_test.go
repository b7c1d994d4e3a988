package cuda

import (
	"bytes"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/driver/cuda/emutest"
	"github.com/apr-engine/apr/tensor"
)

// Cutting a file into kernels loses nothing, and each kernel is a module with what
// all of the file share.
func TestEntries(t *testing.T) {
	files, err := fs.Glob(ptx, "ptx/*.ptx")
	if err != nil || len(files) == 0 {
		t.Fatalf("no PTX: %v", err)
	}
	for _, file := range files {
		text, err := ptx.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		head, kernels, err := entries(text)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if n := bytes.Count(text, []byte(".entry ")); n != len(kernels) || n == 0 {
			t.Errorf("%s: %d kernels of %d", file, len(kernels), n)
		}
		size := len(head)
		for name, body := range kernels {
			size += len(body)
			if !bytes.HasPrefix(body, []byte(".visible .entry "+name+"(")) || !bytes.HasSuffix(body, []byte("\n}\n")) || bytes.Count(body, []byte(".entry ")) != 1 {
				t.Errorf("%s: %s is not one entry", file, name)
			}
		}
		// The newline before each next entry stays with the head.
		if size < len(text) || size > len(text)+len(kernels) {
			t.Errorf("%s: %d bytes of %d", file, size, len(text))
		}
		for _, word := range []string{".version ", ".target ", ".address_size "} {
			if !bytes.Contains(head, []byte(word)) {
				t.Errorf("%s: no %sin what kernels share", file, word)
			}
		}
	}
	all, err := images()
	if err != nil {
		t.Fatal(err)
	}
	families := map[string][]image{}
	for _, list := range all {
		for _, i := range list {
			families[i.family()] = append(families[i.family()], i)
		}
	}
	for _, list := range families {
		text := moduleOf(list...)
		for word, want := range map[string]int{".version ": 1, ".target ": 1, ".address_size ": 1, ".visible .entry ": len(list)} {
			if n := bytes.Count(text, []byte("\n"+word)); n != want {
				t.Errorf("%s with %d others: %d lines of %s, want %d", list[0].file, len(list)-1, n, word, want)
			}
		}
		if n := bytes.Count(text, []byte("\n.extern ")); n > 1 {
			t.Errorf("%s with %d others: declared %d times", list[0].file, len(list)-1, n)
		}
	}
	t.Logf("%d families of %d kernels", len(families), len(all))
	for _, broken := range []string{"\n.visible .entry k(\n)\n{\n", "\n.visible .entry k\n}\n"} {
		if _, _, err := entries([]byte(broken)); err == nil {
			t.Errorf("%q is not refused", broken)
		}
	}
}

// loaded lists the kernels that the driver has.
func loaded(e *executor) []string { return slices.Sorted(maps.Keys(e.lib.loads)) }

// Loading compiles the kernels that the model's steps use, nothing else, and leaves
// nothing to compile in the middle of a generation.
func TestLoadsWhatIsUsed(t *testing.T) {
	for _, kv := range []tensor.DType{tensor.F16, tensor.F32} {
		t.Run(kv.String(), func(t *testing.T) {
			before := emutest.Count(t, "modules")
			e := open(t, "qwen2", backend.Options{KV: kv, MaxBatch: 128})
			kernels := loaded(e)
			families := map[string]bool{}
			for _, k := range kernels {
				families[e.lib.best[k].family()] = true
			}
			if n := emutest.Count(t, "modules") - before; n != len(families) {
				t.Errorf("%d modules for %d families of kernels", n, len(families))
			}
			if n := emutest.Count(t, "modules in parallel"); n == 0 {
				t.Error("no module is compiled in parallel")
			}
			formats := map[string]bool{}
			for _, w := range e.weights {
				formats[strings.ToLower(w.dtype.String())] = true
			}
			other := "_f32"
			if kv == tensor.F32 {
				other = "_f16"
			}
			for _, k := range kernels {
				if format, ok := strings.CutPrefix(k, "matvec_"); ok && !formats[format[:strings.LastIndex(format, "_")]] {
					t.Errorf("%s, and no weight has this format", k)
				}
				if strings.HasPrefix(k, "rope_store") && strings.HasSuffix(k, other) || strings.HasPrefix(k, "attention_") && strings.Contains(k, other) {
					t.Errorf("%s with a cache of %s", k, kv)
				}
			}
			used := map[string]int{}
			for _, n := range []int{1, 3, 8, 9, 31, 100} {
				if err := decode(e, n, 1); err != nil {
					t.Fatal(err)
				}
			}
			for _, k := range loaded(e) {
				used[k] = emutest.Count(t, "kernel "+k)
				if !slices.Contains(kernels, k) {
					t.Errorf("%s was loaded in the middle", k)
				}
			}
			t.Logf("%d kernels of %d; launches: %v", len(kernels), len(e.lib.best), used)
		})
	}
}

// A kernel that the driver refuses, whichever it is, refuses the model with the
// compiler's words; the process goes on.
func TestRefusedKernel(t *testing.T) {
	p, f := qwen2(t)
	load := func() error {
		e, err := probe(t).Load(p, f, backend.Options{KV: tensor.F16, MaxBatch: 32})
		if err == nil {
			err = e.Close()
		}
		return err
	}
	for _, kernel := range []string{"dequant_scales", "matvec_f32_1", "rope_store_f16"} {
		emutest.Set(t, "refuse "+kernel, 1)
		err := load()
		if !cuda.IsCode(err, cuda.InvalidPTX) || !strings.Contains(err.Error(), "refused on purpose") || !strings.Contains(err.Error(), "kernel "+kernel+":") {
			t.Errorf("%s: %v", kernel, err)
		} else if strings.Count(err.Error(), "refused on purpose") != 1 {
			t.Errorf("%s: said more than once: %v", kernel, err)
		}
		emutest.Reset(t)
		if err := load(); err != nil {
			t.Errorf("after %s: %v", kernel, err)
		}
	}
	emutest.Reset(t)
	emutest.Set(t, "no parallel compiler", 1)
	if err := load(); err != nil || emutest.Count(t, "modules in parallel") != 0 || emutest.Count(t, "modules") == 0 {
		t.Errorf("a driver that compiles on one thread: %v", err)
	}
}

// speedKernels are what a model of Q4_K_M with heads of 128 uses.
var speedKernels = []string{
	"add", "attention_combine", "attention_decode_f16_d128", "attention_prefill_f16_d128", "convert_f16", "convert_gated_f16", "convert_norm_f16",
	"dequant_f16", "dequant_scales", "embed_tokens", "gather_rows", "gemm_128x128", "gemm_64x128", "gemm_stage_q4_k_16", "gemm_stage_q4_k_32", "gemm_q4_k_64",
	"gemm_stage_q6_k_16", "gemm_stage_q6_k_32", "gemm_q6_k_64", "gemm_reduce", "gemm_wgmma_128x128", "gemm_wgmma_128x256", "matvec_q4_k_1", "matvec_q4_k_2", "matvec_mma_q4_k_4", "matvec_mma_q4_k_8",
	"matvec_q6_k_1", "matvec_q6_k_2", "matvec_mma_q6_k_4", "matvec_mma_q6_k_8", "attention_decode_rotate_f16_d128", "round_rows", "rope_store_f16",
}

// TestSpeedCompile times the driver's compiler in ways to ask it. With the driver's cache
// in use, CUDA_CACHE_DISABLE unset, that is what loading takes when everything has been
// compiled before.
func TestSpeedCompile(t *testing.T) {
	needBench(t)
	if emutest.Emulated() {
		t.Skip("a measurement of a GPU's compiler, which the emulation has not: set " + benchEnv + "=1 on a GPU (docs/cuda.md)")
	}
	inContext := func(what string, f func(l *library, kernels []string) error) {
		start := time.Now()
		c := emutest.Open(t)
		made := time.Since(start)
		l, err := newLibrary(c)
		if err != nil {
			t.Fatal(err)
		}
		kernels := slices.DeleteFunc(slices.Clone(speedKernels), func(k string) bool { return !l.has(k) })
		if len(kernels) < 20 {
			t.Fatalf("only %d kernels are known: %v", len(kernels), kernels)
		}
		start = time.Now()
		if err := c.Do(func() error { return f(l, kernels) }); err != nil {
			t.Fatal(err)
		}
		t.Logf("%-40s %v (context %v)", what, time.Since(start), made)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("cache disabled: %q, driver %d", os.Getenv("CUDA_CACHE_DISABLE"), probe(t).(*device).driver.Version)
	inContext("as in loading", func(l *library, kernels []string) error {
		_, err := l.start(kernels, new(watch).step)()
		return err
	})
	inContext("one thread", func(l *library, kernels []string) error {
		families := map[string][]image{}
		for _, k := range kernels {
			families[l.best[k].family()] = append(families[l.best[k].family()], l.best[k])
		}
		for _, list := range families {
			start := time.Now()
			text := moduleOf(list...)
			if _, _, err := l.c.LoadModule(text, false); err != nil {
				return err
			}
			t.Logf("  %d kernels, %d kB: %v", len(list), len(text)>>10, time.Since(start))
		}
		return nil
	})
	inContext("one by one", func(l *library, kernels []string) error {
		for _, k := range kernels {
			start := time.Now()
			if _, err := l.function(k); err != nil {
				return err
			}
			t.Logf("  %-30s %v", k, time.Since(start))
		}
		return nil
	})
	start := time.Now()
	var wait sync.WaitGroup
	for n := range 4 {
		wait.Go(func() {
			c := emutest.Open(t)
			l, err := newLibrary(c)
			if err == nil {
				err = c.Do(func() error {
					for i, k := range speedKernels {
						if i%4 == n && l.has(k) {
							if _, err := l.function(k); err != nil {
								return err
							}
						}
					}
					return nil
				})
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	t.Logf("%-40s %v", "in four contexts at a time", time.Since(start))
}
