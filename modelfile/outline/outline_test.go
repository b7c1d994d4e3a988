package outline

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/modelfile/source"
	"github.com/apr-engine/apr/tensor"
)

func text(n *Node, indent string) string {
	line := fmt.Sprintf("%s%s %v %v %d %d\n", indent, n.Name, n.Shape, n.Types, n.Tensors, n.Bytes)
	for _, c := range n.Children {
		line += text(c, indent+" ")
	}
	return line
}

func small(layers ...[]string) *source.Model {
	var list []tensor.Tensor
	add := func(name string, typ tensor.DType) {
		size, _ := tensor.Bytes(typ, []int{2, 256})
		list = append(list, tensor.Tensor{Name: name, Type: typ, Shape: []int{2, 256}, Data: make([]byte, size)})
	}
	add("output.weight", tensor.F16)
	for i, l := range layers {
		for _, name := range l {
			typ := tensor.Q4_K
			if i == 1 {
				typ = tensor.Q6_K
			}
			add(fmt.Sprintf("blk.%d.%s", i, name), typ)
		}
	}
	add("token_embd.weight", tensor.F32)
	add("odd", tensor.F32)
	return source.New(gguf.NewMetadata(), list)
}

func TestOf(t *testing.T) {
	a, b := []string{"ffn_up.weight", "attn_q.bias", "attn_q.weight", "odd.weight"}, []string{"attn_q.weight"}
	got := text(Of(small(a, a, b), false), "")
	want := `model [] [F32 Q4_K Q6_K F16] 12 8240
 token_embd.weight [2 256] [F32] 1 2048
 odd [2 256] [F32] 1 2048
 blk.0 … blk.1 [] [Q4_K Q6_K] 8 2832
  attention [] [Q4_K Q6_K] 4 1416
   attn_q.weight [2 256] [Q4_K Q6_K] 2 708
   attn_q.bias [2 256] [Q4_K Q6_K] 2 708
  feed-forward network [] [Q4_K Q6_K] 2 708
   ffn_up.weight [2 256] [Q4_K Q6_K] 2 708
  other [] [Q4_K Q6_K] 2 708
   odd.weight [2 256] [Q4_K Q6_K] 2 708
 blk.2 [] [Q4_K] 1 288
  attention [] [Q4_K] 1 288
   attn_q.weight [2 256] [Q4_K] 1 288
 output.weight [2 256] [F16] 1 1024
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if each := Of(small(a, a, b), true); len(each.Children) != 6 || each.Children[3].Name != "blk.1" {
		t.Errorf("each:\n%s", text(each, ""))
	}
	if empty := Of(source.New(gguf.NewMetadata(), nil), false); empty.Tensors != 0 || len(empty.Children) != 0 {
		t.Errorf("empty:\n%s", text(empty, ""))
	}
}

// Nothing is lost and every tensor of the bundled architectures is explained.
func TestModels(t *testing.T) {
	paths, err := filepath.Glob("../../testdata/architectures/*.gguf")
	if err != nil || len(paths) == 0 {
		t.Fatal(err, paths)
	}
	for _, path := range paths {
		m, err := source.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		var bytes int64
		for _, x := range m.Tensors {
			bytes += int64(len(x.Data))
		}
		root := Of(m, false)
		if root.Tensors != len(m.Tensors) || root.Bytes != bytes {
			t.Errorf("%s: %d tensors and %d bytes, want %d and %d", path, root.Tensors, root.Bytes, len(m.Tensors), bytes)
		}
		var visit func(n *Node)
		visit = func(n *Node) {
			if n.Shape != nil && n.What == "" {
				t.Errorf("%s: %s is not explained", path, n.Name)
			}
			for _, c := range n.Children {
				visit(c)
			}
		}
		visit(root)
		if !slices.ContainsFunc(root.Children, func(n *Node) bool { return strings.HasPrefix(n.Name, "blk.0 … ") }) {
			t.Errorf("%s: the layers are not together\n%s", path, text(root, ""))
		}
		m.Close()
	}
}
