package kernel

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/apr-engine/apr/internal/mmapfile"
	"github.com/apr-engine/apr/tensor"
)

func TestZZMapped(t *testing.T) {
	path := os.Getenv("ZZ_FILE")
	if path == "" {
		t.Skip()
	}
	f, err := mmapfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	data := f.Bytes()
	rounds, _ := strconv.Atoi(os.Getenv("ZZ_ROUNDS"))
	if rounds == 0 {
		rounds = 150
	}
	var sink uint64
	for i := 0; i < len(data); i += 4096 {
		sink += uint64(data[i])
	}
	if os.Getenv("ZZ_COPY") != "" { // anonymous copy
		b := aligned[byte](len(data))
		copy(b, data)
		data = b
	}
	for _, threads := range map[string][]int{"": {1, 2}, "1": {1}, "2": {2}}[os.Getenv("ZZ_T")] {
		for _, c := range []struct {
			d    tensor.DType
			cols int
		}{{tensor.Q4_K, 1536}, {tensor.Q4_K, 8960}, {tensor.Q6_K, 8960}} {
			rb, _ := c.d.RowBytes(c.cols)
			const piece = 6 << 20 // per matrix
			rows := piece / rb / 64 * 64
			size := rows * rb
			x, _ := i16Rows(rand.New(rand.NewPCG(1, 1)), 1, c.cols)
			out := make([]float32, rows)
			n := len(data) / size
			at := 0
			next := func() tensor.Tensor {
				i := at % n
				at += 1
				return tensor.Tensor{Name: "w", Type: c.d, Shape: []int{rows, c.cols}, Data: data[i*size : (i+1)*size]}
			}
			var rd, mv []float64
			par := func(do func(w int)) time.Duration {
				var wg, ready sync.WaitGroup
				ready.Add(threads)
				go1 := make(chan bool)
				for w := range threads {
					wg.Add(1)
					go func() {
						runtime.LockOSThread()
						ready.Done()
						<-go1
						do(w)
						wg.Done()
					}()
				}
				ready.Wait()
				s := time.Now()
				close(go1)
				wg.Wait()
				return time.Since(s)
			}
			for r := 0; r < rounds; r++ {
				w := next()
				d := par(func(i int) {
					part := size / threads
					readSink.Add(ReadStream(w.Data[i*part : (i+1)*part]))
				})
				rd = append(rd, float64(size)/float64(d))
				w = next()
				d = par(func(i int) {
					r0, r1 := rows*i/threads, rows*(i+1)/threads
					MatVecI16(out[r0:r1], w, r0, r1, x, 0)
				})
				mv = append(mv, float64(size)/float64(d))
			}
			var ratio []float64
			for i := range rd {
				ratio = append(ratio, mv[i]/rd[i])
			}
			q := func(s []float64, f float64) float64 { s = slices.Clone(s); slices.Sort(s); return s[int(f*float64(len(s)-1))] }
			fmt.Printf("%d threads %s %d: read %.1f (best10 %.1f) matvec %.1f (best10 %.1f) ratio %.2f (%.2f-%.2f)\n", threads, c.d, c.cols, q(rd, .5), q(rd, .9), q(mv, .5), q(mv, .9), q(ratio, .5), q(ratio, .25), q(ratio, .75))
		}
	}
}

var readSink atomicU64

type atomicU64 struct{ mu sync.Mutex; v uint64 }

func (a *atomicU64) Add(v uint64) { a.mu.Lock(); a.v += v; a.mu.Unlock() }
