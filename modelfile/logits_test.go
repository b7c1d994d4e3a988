package modelfile_test

import (
	"cmp"
	"encoding/binary"
	"errors"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apr-engine/apr/backend"
	_ "github.com/apr-engine/apr/backend/all"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/format/apr"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/model"
	_ "github.com/apr-engine/apr/model/all"
	"github.com/apr-engine/apr/modelfile"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
	"github.com/apr-engine/apr/tokenizer"
)

func convert(t *testing.T, in, out string, opts modelfile.Options) string {
	t.Helper()
	out = filepath.Join(t.TempDir(), out)
	if _, err := modelfile.Convert(t.Context(), in, out, opts); err != nil {
		t.Fatal(err)
	}
	return out
}

func open(t *testing.T, path string) *modelfile.File {
	t.Helper()
	f, err := modelfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// logits computes the logits after each prompt's last token with cpu-exact.
func logits(t *testing.T, path string, prompts [][]int32) (rows [][]float32) {
	t.Helper()
	f := open(t, path)
	p, err := model.Build(f.Metadata, f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := backend.Find("cpu-exact")
	if err != nil {
		t.Fatal(err)
	}
	devices, err := b.Probe()
	if err != nil || len(devices) == 0 {
		t.Fatalf("probe: %v, %v", devices, err)
	}
	defer devices[0].Close()
	exec, err := devices[0].Load(p, f, backend.Options{KV: tensor.F32})
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Close()
	for _, ids := range prompts {
		seq, err := exec.NewSequence(len(ids))
		if err != nil {
			t.Fatal(err)
		}
		var l backend.Logits
		for chunk := range slices.Chunk(ids, 256) {
			if err := exec.Step([]backend.Span{{Seq: seq, Tokens: chunk, Want: backend.Last}}, &l); err != nil {
				t.Fatal(err)
			}
		}
		rows = append(rows, slices.Clone(l.Row(0)))
		seq.Close()
	}
	return rows
}

// ids are short prompts that every vocabulary of the tests has.
var ids = [][]int32{{1}, {5, 9, 200, 31, 7}, {100, 99, 98, 97, 96, 95, 3, 2}}

// sameBits fails unless two models give the same logits to the last bit.
func sameBits(t *testing.T, got, want string) {
	t.Helper()
	a, b := logits(t, got, ids), logits(t, want, ids)
	for p := range b {
		for i := range b[p] {
			if math.Float32bits(a[p][i]) != math.Float32bits(b[p][i]) || math.IsNaN(float64(b[p][i])) {
				t.Fatalf("prompt %d: logit %d is %v, want %v", p, i, a[p][i], b[p][i])
			}
		}
	}
}

func architectures(t *testing.T) []string {
	list, err := filepath.Glob(golden.Path(t, "testdata", "architectures", "*.gguf"))
	if err != nil || len(list) == 0 {
		t.Fatalf("no architectures: %v", err)
	}
	return list
}

// TestSameLogits: an .apr file gives the logits of the GGUF file it was made
// from, to the last bit, for each type that both containers have.
func TestSameLogits(t *testing.T) {
	for _, path := range architectures(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			sameBits(t, convert(t, path, "m.apr", modelfile.Options{}), path)
		})
	}
	bundled := golden.Path(t, "models", "tiny-coder-4m-q4_k_m.gguf")
	t.Run("q4_k_m", func(t *testing.T) { sameBits(t, convert(t, bundled, "m.apr", modelfile.Options{}), bundled) })
	for _, recipe := range []string{"f32", "f16", "bf16", "q6_k"} {
		t.Run(recipe, func(t *testing.T) {
			o := modelfile.Options{Recipe: recipe}
			want := convert(t, bundled, "m.gguf", o)
			sameBits(t, convert(t, bundled, "m.apr", o), want)
			sameBits(t, convert(t, want, "n.apr", modelfile.Options{}), want)
		})
	}
}

// TestSharedModels: GGUF → .apr → GGUF and Hugging Face → .apr → GGUF give identical
// logits on all models of ../shared/models; the one in a type that .apr lacks is
// refused with its tensors.
func TestSharedModels(t *testing.T) {
	if testing.Short() {
		t.Skip("logits of the larger models take long under the race detector")
	}
	list, err := filepath.Glob(filepath.Join(golden.Shared(t, "models"), "*.gguf"))
	if err != nil || len(list) == 0 {
		t.Fatalf("no models: %v", err)
	}
	for _, path := range list {
		t.Run(filepath.Base(path), func(t *testing.T) {
			if strings.Contains(path, "q8_0") {
				_, err := modelfile.Convert(t.Context(), path, filepath.Join(t.TempDir(), "m.apr"), modelfile.Options{})
				if !errors.Is(err, modelfile.ErrTypes) || !strings.Contains(err.Error(), "blk.0.attn_q.weight Q8_0") || !strings.Contains(err.Error(), "--quantize") {
					t.Errorf("got %v", err)
				}
				return
			}
			mid := convert(t, path, "m.apr", modelfile.Options{})
			back := convert(t, mid, "m.gguf", modelfile.Options{})
			sameBits(t, mid, path)
			sameBits(t, back, path)
			sameFile(t, back, path)
		})
	}
	for _, name := range []string{"student-hf", "teacher-hf"} {
		t.Run(name, func(t *testing.T) {
			dir := golden.Shared(t, "models", name)
			want := convert(t, dir, "want.gguf", modelfile.Options{})
			mid := convert(t, dir, "m.apr", modelfile.Options{})
			back := convert(t, mid, "m.gguf", modelfile.Options{})
			sameBits(t, mid, want)
			sameBits(t, back, want)
			sameFile(t, back, want)
		})
	}
}

// foreignFile writes a GGUF model as another program would: Hugging Face names and
// none of our own keys. change may alter the fields and the tensors.
func foreignFile(t *testing.T, path string, change func(f *modelfile.File, md map[string]any, x *apr.TensorInfo, data []byte) []byte) string {
	t.Helper()
	f := open(t, path)
	arch, _ := f.Metadata.String("general.architecture")
	md := map[string]any{"architecture": arch, "name": nil}
	number := func(key, from string) {
		if n, ok := f.Metadata.Uint(arch + "." + from); ok {
			md[key] = n
		}
	}
	number("hidden_dim", "embedding_length") // an alias
	number("num_layers", "block_count")
	number("num_heads", "attention.head_count")
	number("num_kv_heads", "attention.head_count_kv")
	number("intermediate_size", "feed_forward_length")
	number("max_position_embeddings", "context_length")
	if x, ok := f.Metadata.Float(arch + ".rope.freq_base"); ok {
		md["rope_theta"] = x
	}
	if x, ok := f.Metadata.Float(arch + ".attention.layer_norm_rms_epsilon"); ok {
		md["rms_norm_eps"] = float32(x)
	}
	if tokens, ok := f.Metadata.Strings("tokenizer.ggml.tokens"); ok {
		md["tokenizer.vocabulary"] = tokens
		md["tokenizer.merges"], _ = f.Metadata.Strings("tokenizer.ggml.merges")
		md["tokenizer.eos_token_id"], _ = f.Metadata.Uint("tokenizer.ggml.eos_token_id")
	}
	var infos []apr.TensorInfo
	var datas [][]byte
	for _, x := range f.Tensors {
		name, _ := modelfile.HFName(arch, x.Name)
		info := apr.TensorInfo{Name: name, Type: apr.Type(x.Type), Shape: x.Shape}
		data := x.Data
		if change != nil {
			data = change(f, md, &info, data)
		}
		infos, datas = append(infos, info), append(datas, data)
	}
	var fields []apr.Field
	for k, v := range md {
		fields = append(fields, apr.Field{Key: k, Value: v})
	}
	slices.SortFunc(fields, func(a, b apr.Field) int { return cmp.Compare(a.Key, b.Key) })
	out := filepath.Join(t.TempDir(), "foreign.apr")
	w, err := apr.Create(out, fields, infos)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for _, data := range datas {
		dst, err := w.NextTensor()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := dst.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestForeign: files of other writers, which lack our keys, give the same logits
// and the same tokens.
func TestForeign(t *testing.T) {
	for _, name := range []string{"qwen2", "qwen3", "qwen3-tied", "llama-gqa", "llama-mha-tied"} {
		t.Run(name, func(t *testing.T) {
			path := golden.Path(t, "testdata", "architectures", name+".gguf")
			sameBits(t, foreignFile(t, path, nil), path)
		})
	}
	t.Run("tokenizer", func(t *testing.T) {
		path := golden.Path(t, "models", "tiny-coder-4m-q4_k_m.gguf")
		out := foreignFile(t, path, nil)
		sameBits(t, out, path)
		for _, p := range []string{out, convert(t, path, "m.apr", modelfile.Options{})} {
			a, b := load(t, p), load(t, path)
			const text = "package main\n\nfunc main() {\n\tfmt.Println(\"été 1234\")\n}\n<|im_end|>"
			if x, y := encode(a, text), encode(b, text); !slices.Equal(x, y) || len(x) == 0 {
				t.Errorf("tokens %v, want %v", x, y)
			}
			if x, y := a.Tokenizer.EOG(), b.Tokenizer.EOG(); !slices.Equal(x, y) {
				t.Errorf("end tokens %v, want %v", x, y)
			}
		}
	})
	// A llama model whose rows are in Hugging Face's order says so with rope_type 2.
	t.Run("llama halves", func(t *testing.T) {
		path := golden.Path(t, "testdata", "architectures", "llama-gqa.gguf")
		hf := convert(t, path, "m.safetensors", modelfile.Options{})
		_ = hf
		out := foreignFile(t, path, func(f *modelfile.File, md map[string]any, x *apr.TensorInfo, data []byte) []byte {
			md["rope_type"] = 2
			key := ""
			switch {
			case strings.HasSuffix(x.Name, "q_proj.weight"):
				key = "llama.attention.head_count"
			case strings.HasSuffix(x.Name, "k_proj.weight"):
				key = "llama.attention.head_count_kv"
			default:
				return data
			}
			heads, _ := f.Metadata.Uint(key)
			return halves(data, x.Shape[0], int(heads))
		})
		near(t, logits(t, out, ids), logits(t, path, ids), 1e-6)
		// Converting it puts the rows where every reader of GGUF expects them.
		sameBits(t, convert(t, out, "back.gguf", modelfile.Options{}), path)
	})
}

// halves undoes llama.cpp's permute, written from its definition: the rows of a
// head, seen as [2][width/2], had been transposed to [width/2][2].
func halves(data []byte, rows, heads int) []byte {
	size, width := len(data)/rows, rows/heads
	out := make([]byte, len(data))
	for h := range heads {
		for j := range 2 {
			for i := range width / 2 {
				from, to := h*width+2*i+j, h*width+j*width/2+i
				copy(out[to*size:(to+1)*size], data[from*size:(from+1)*size])
			}
		}
	}
	return out
}

func load(t *testing.T, path string) *engine.Model {
	t.Helper()
	m, err := engine.LoadModel(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// near compares with a bound on the relative error.
func near(t *testing.T, got, want [][]float32, limit float64) {
	t.Helper()
	for p := range want {
		e := golden.RelativeRMS(got[p], want[p])
		t.Logf("prompt %d: relative error %.3g of %.3g", p, e, limit)
		if !(e <= limit) {
			t.Errorf("prompt %d: relative error %.3g, want at most %.3g", p, e, limit)
		}
	}
}

// TestOwnTypes: AprQ4 and AprQ8 tensors stand for the numbers of their definition,
// and a model of them computes with just these.
func TestOwnTypes(t *testing.T) {
	path := golden.Path(t, "models", "tiny-coder-4m-q4_k_m.gguf")
	for _, kind := range []apr.Type{apr.Q4, apr.Q8} {
		t.Run(kind.String(), func(t *testing.T) {
			exact := map[string][]float32{}
			pack := func(as apr.Type) func(*modelfile.File, map[string]any, *apr.TensorInfo, []byte) []byte {
				return func(f *modelfile.File, _ map[string]any, x *apr.TensorInfo, data []byte) []byte {
					if len(x.Shape) == 1 {
						return data
					}
					d, _ := x.Type.DType()
					numbers := make([]float32, x.Shape[0]*x.Shape[1])
					if err := quant.Dequantize(d, numbers, data); err != nil {
						t.Fatal(err)
					}
					packed, values := packOwn(kind, numbers)
					exact[x.Name] = values
					if x.Type = as; as == kind {
						return packed
					}
					var out []byte
					for _, v := range values {
						out = binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
					}
					return out
				}
			}
			own, plain := foreignFile(t, path, pack(kind)), foreignFile(t, path, pack(apr.Type(tensor.F32)))
			f := open(t, own)
			for _, x := range f.Tensors {
				name, _ := modelfile.HFName("qwen2", x.Name)
				want := exact[name]
				if want == nil {
					continue
				}
				if got := f.StoredType(x.Name); got != kind.String() {
					t.Errorf("%s is stored as %s", x.Name, got)
				}
				numbers := make([]float32, x.Elements())
				if err := quant.Dequantize(x.Type, numbers, x.Data); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(numbers, want) {
					t.Errorf("%s: the numbers differ", x.Name)
				}
			}
			near(t, logits(t, own, ids), logits(t, plain, ids), 1e-6) // sums in another order
			// Copied as they are from .apr to .apr.
			again := open(t, convert(t, own, "again.apr", modelfile.Options{}))
			if got := again.StoredType("blk.0.ffn_up.weight"); got != kind.String() {
				t.Errorf("after a copy it is %s", got)
			}
		})
	}
}

// packOwn quantises by the definition of AprQ4 and AprQ8 and returns the numbers
// that the result stands for.
func packOwn(kind apr.Type, x []float32) (packed []byte, values []float32) {
	largest := func(x []float32) (m float32) {
		for _, v := range x {
			m = max(m, float32(math.Abs(float64(v))))
		}
		return m
	}
	if kind == apr.Q8 {
		scale := largest(x) / 127
		packed = binary.LittleEndian.AppendUint32(nil, math.Float32bits(scale))
		for _, v := range x {
			q := int8(math.Round(float64(v / scale)))
			packed = append(packed, byte(q))
			values = append(values, float32(q)*scale)
		}
		return packed, values
	}
	for block := range slices.Chunk(x, 32) {
		scale := quant.F32ToF16(largest(block) / 7)
		packed = binary.LittleEndian.AppendUint16(packed, scale)
		s := quant.F16ToF32(scale)
		var bytes [16]byte
		for i, v := range block {
			q := min(7, max(-8, int(math.Round(float64(v/s)))))
			bytes[i/2] |= byte(q+8) << (i % 2 * 4)
			values = append(values, float32(q)*s)
		}
		packed = append(packed, bytes[:]...)
	}
	return packed, values
}

func encode(m *engine.Model, text string) []int32 {
	return m.Tokenizer.Encode(text, encodeOptions)
}

// TestReferenceImport: importing the folders gives PyTorch's logits.
func TestReferenceImport(t *testing.T) {
	for _, name := range []string{"student", "teacher"} {
		for _, out := range []string{"m.gguf", "m.apr"} {
			t.Run(name+" "+out, func(t *testing.T) {
				path := convert(t, golden.Shared(t, "models", name+"-hf"), out, modelfile.Options{})
				var prompts [][]int32
				var want [][]float32
				for _, p := range golden.Prompts(t, golden.Shared(t, "models", "ref", name+"_ref_public.safetensors")) {
					prompts, want = append(prompts, p.IDs), append(want, p.Logits)
				}
				// PyTorch's float32 itself is within about 1e-5 of float64.
				near(t, logits(t, path, prompts), want, 1e-5)
			})
		}
	}
}

// TestTeacherQ4KM: the teacher, imported and quantised, is as good as the file
// that llama-quantize made: at most 2 % worse in the error of the weights, plain and
// weighted by the weight's square as quantisers do. TestTeacherHeldOut compares what
// the two predict.
func TestTeacherQ4KM(t *testing.T) {
	if testing.Short() {
		t.Skip("quantising takes long under the race detector")
	}
	peerPath := golden.Shared(t, "models", "teacher-q4_k_m.gguf")
	folder := golden.Shared(t, "models", "teacher-hf")
	exact := open(t, convert(t, folder, "f.gguf", modelfile.Options{}))
	ourPath := convert(t, folder, "q.apr", modelfile.Options{Recipe: "q4_k_m"})
	ours, peer := open(t, ourPath), open(t, peerPath)
	for _, weighted := range []bool{false, true} {
		a, b := modelError(t, exact, ours, weighted), modelError(t, exact, peer, weighted)
		t.Logf("weighted %t: error %.6g, llama-quantize's %.6g, ratio %.4f", weighted, a, b, a/b)
		if !(a <= 1.02*b) {
			t.Errorf("weighted %t: error %.6g, more than 1.02 times %.6g", weighted, a, b)
		}
	}
}

// modelError sums the squared error of all matrices over their squares' sum.
func modelError(t *testing.T, exact, f *modelfile.File, weighted bool) float64 {
	var sum, all float64
	for _, w := range exact.Tensors {
		if len(w.Shape) < 2 {
			continue
		}
		g, ok := f.Tensor(w.Name)
		if !ok || g.Elements() != w.Elements() {
			t.Fatalf("%s is missing", w.Name)
		}
		x, y := make([]float32, w.Elements()), make([]float32, w.Elements())
		if err := cmp.Or(quant.Dequantize(w.Type, x, w.Data), quant.Dequantize(g.Type, y, g.Data)); err != nil {
			t.Fatal(err)
		}
		for i := range x {
			weight := 1.0
			if weighted {
				weight = float64(x[i]) * float64(x[i])
			}
			d := float64(x[i]) - float64(y[i])
			sum += weight * d * d
			all += weight * float64(x[i]) * float64(x[i])
		}
	}
	return math.Sqrt(sum / all)
}

var encodeOptions = tokenizer.EncodeOptions{AddSpecial: true, ParseSpecial: true}

// le32 reads a float.
func le32(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b)) }
