package modelfile_test

import (
	"bytes"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/modelfile"
	"github.com/apr-engine/apr/modelfile/names"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// TestGGMLQuantisers: the quantisers written from ggml's description give the bytes
// of llama-quantize's file, but for a few blocks where its vectorised sums round
// otherwise.
func TestGGMLQuantisers(t *testing.T) {
	if testing.Short() {
		t.Skip("quantising takes long under the race detector")
	}
	exact := open(t, convert(t, golden.Shared(t, "models", "teacher-hf"), "f.gguf", modelfile.Options{}))
	peer := open(t, golden.Shared(t, "models", "teacher-q4_k_m.gguf"))
	equal, all := map[tensor.DType]int{}, map[tensor.DType]int{}
	for _, p := range peer.Tensors {
		if p.Type != tensor.Q4_K && p.Type != tensor.Q6_K {
			continue
		}
		e, _ := exact.Tensor(p.Name)
		x := make([]float32, e.Elements())
		if err := quant.Dequantize(e.Type, x, e.Data); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(p.Data))
		if p.Type == tensor.Q4_K {
			ggmlQ4K(got, x)
		} else {
			ggmlQ6K(got, x)
		}
		size := p.Type.BlockBytes()
		for i := 0; i < len(got); i += size {
			all[p.Type]++
			if bytes.Equal(got[i:i+size], p.Data[i:i+size]) {
				equal[p.Type]++
			}
		}
	}
	for typ, n := range all {
		t.Logf("%s: %d of %d blocks equal", typ, equal[typ], n)
		if float64(equal[typ]) < 0.99*float64(n) {
			t.Errorf("%s: %d of %d blocks equal", typ, equal[typ], n)
		}
	}
}

// draw is the model in another basis: the dimensions of the residual stream and of
// the feed-forward networks change places and signs. It computes the same, but
// every block that is quantised holds other numbers: the rounding is drawn anew.
func draw(t *testing.T, exact *modelfile.File, seed uint64) string {
	t.Helper()
	basis := func(part, n int) (perm []int, sign []float32) {
		rng := rand.New(rand.NewPCG(seed, uint64(part)))
		perm, sign = rng.Perm(n), make([]float32, n)
		for i := range sign {
			sign[i] = float32(1 - 2*rng.IntN(2))
		}
		return perm, sign
	}
	embedding, _ := exact.Tensor("token_embd.weight")
	hidden, signs := basis(-1, embedding.Cols())
	var out []tensor.Tensor
	for _, x := range exact.Tensors {
		n, ok := names.Parse(x.Name, false)
		if !ok {
			t.Fatalf("tensor %s", x)
		}
		part := n.Role.GGUF
		y := make([]float32, x.Elements())
		if err := quant.Dequantize(x.Type, y, x.Data); err != nil {
			t.Fatal(err)
		}
		up, _ := exact.Tensor("blk.0.ffn_up.weight")
		ffn, ffnSigns := basis(n.Layer, up.Rows())
		none := func(n int) []float32 { return slices.Repeat([]float32{1}, n) }
		rows, cols := x.Rows(), x.Cols()
		rowAt, rowSign, colAt, colSign := identity(rows), none(rows), identity(cols), none(cols)
		if len(x.Shape) == 1 {
			if strings.HasSuffix(part, "norm") {
				colAt = hidden
			}
		} else {
			switch part {
			case "attn_output":
				rowAt, rowSign = hidden, signs
			case "ffn_down":
				rowAt, rowSign, colAt, colSign = hidden, signs, ffn, ffnSigns
			case "ffn_gate":
				rowAt, colAt, colSign = ffn, hidden, signs
			case "ffn_up":
				rowAt, rowSign, colAt, colSign = ffn, ffnSigns, hidden, signs
			default:
				colAt, colSign = hidden, signs
			}
		}
		z := make([]float32, len(y))
		for r := range rows {
			for c := range cols {
				z[r*cols+c] = y[rowAt[r]*cols+colAt[c]] * rowSign[r] * colSign[c]
			}
		}
		x.Data = make([]byte, len(x.Data))
		if err := quant.Quantize(x.Type, x.Data, z, nil); err != nil {
			t.Fatal(err)
		}
		out = append(out, x)
	}
	path := filepath.Join(t.TempDir(), "draw.gguf")
	if err := gguf.WriteFile(path, exact.Metadata, out); err != nil {
		t.Fatal(err)
	}
	return path
}

func identity(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// byGGML quantises a file as llama-quantize does, with the types of a file of ours.
func byGGML(t *testing.T, exactPath, oursPath string) string {
	t.Helper()
	exact, ours := open(t, exactPath), open(t, oursPath)
	var out []tensor.Tensor
	for _, o := range ours.Tensors {
		e, _ := exact.Tensor(o.Name)
		if o.Type == tensor.Q4_K || o.Type == tensor.Q6_K {
			x := make([]float32, e.Elements())
			if err := quant.Dequantize(e.Type, x, e.Data); err != nil {
				t.Fatal(err)
			}
			o.Data = make([]byte, len(o.Data))
			if o.Type == tensor.Q4_K {
				ggmlQ4K(o.Data, x)
			} else {
				ggmlQ6K(o.Data, x)
			}
		}
		out = append(out, o)
	}
	path := filepath.Join(t.TempDir(), "ggml.gguf")
	if err := gguf.WriteFile(path, ours.Metadata, out); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestTeacherDraws tells what the quantisers do on average from the luck of one
// file: both quantise the same eight draws. On average ours is at most 0.5 % worse in
// perplexity. -heldout runs it.
func TestTeacherDraws(t *testing.T) {
	if !*heldOutAll {
		t.Skip("takes long; -heldout runs it")
	}
	exact := open(t, convert(t, golden.Shared(t, "models", "teacher-hf"), "f.gguf", modelfile.Options{}))
	const draws, texts = 8, 12
	kinds := []string{"go", "other", "prose", "own"}
	var diffs, levels, kls []float64
	for seed := range uint64(draws) {
		var paths [3]string
		paths[0] = draw(t, exact, seed)
		paths[1] = convert(t, paths[0], "ours.gguf", modelfile.Options{Recipe: "q4_k_m"})
		paths[2] = byGGML(t, paths[0], paths[1])
		var engines [3]*engine.Engine
		for i, p := range paths {
			e, err := engine.Open(load(t, p), engine.Options{Backend: "cpu"})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			engines[i] = e
		}
		var nll, kl [3]float64
		for _, kind := range kinds {
			c := compare(t, kind, engines, heldOutSamples(t, kind, engines[0].Model, texts))
			for i := range nll {
				nll[i] += c.nll[i] / float64(len(kinds))
				kl[i] += c.kl[i] / float64(len(kinds))
			}
		}
		t.Logf("draw %d: nll exact %.4f, ours +%.4f, ggml's +%.4f; KL %.5f, %.5f", seed, nll[0], nll[1]-nll[0], nll[2]-nll[0], kl[1], kl[2])
		diffs, levels, kls = append(diffs, nll[1]-nll[2]), append(levels, nll[2]-nll[0]), append(kls, math.Log(kl[1]/kl[2]))
	}
	mean, stdErr := meanError(diffs)
	_, spread := meanError(levels)
	ratio, klErr := meanError(kls)
	t.Logf("%d draws: ratio of perplexities %.4f [%.4f, %.4f]; one file's perplexity varies by %.2f %% (standard deviation); KL ratio %.4f [%.4f, %.4f]",
		draws, math.Exp(mean), math.Exp(mean-1.96*stdErr), math.Exp(mean+1.96*stdErr), 100*spread*math.Sqrt(draws), math.Exp(ratio), math.Exp(ratio-1.96*klErr), math.Exp(ratio+1.96*klErr))
	if !(math.Exp(mean) <= heldOutLimit) {
		t.Errorf("on average perplexity is %.4f times that of ggml's quantisers, want at most %v", math.Exp(mean), heldOutLimit)
	}
	if !(ratio <= 0) {
		t.Errorf("on average KL divergence is %.4f times that of ggml's quantisers, want at most 1", math.Exp(ratio))
	}
}
