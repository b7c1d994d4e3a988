// Package outline arranges the tensors of a model as a tree: parts of the model,
// layers, parts of a layer, tensors.
package outline

import (
	"fmt"
	"slices"
	"strings"

	"github.com/apr-engine/apr/modelfile/names"
	"github.com/apr-engine/apr/modelfile/source"
	"github.com/apr-engine/apr/tensor"
)

// Node is a tensor, or a group of nodes. A node for several layers that are alike
// stands for all of them: its tensors show one layer's shapes, and its sums are
// over all.
type Node struct {
	Name string `json:"name"`
	// What says what a tensor does; empty if the name is not known.
	What string `json:"what,omitempty"`
	// Shape is a tensor's, slowest-varying first; nil for groups.
	Shape []int `json:"shape,omitempty"`
	// Types are the storage types, each once, in order of appearance.
	Types      []string `json:"types"`
	Tensors    int      `json:"tensors"`
	Parameters int64    `json:"parameters"`
	Bytes      int64    `json:"bytes"`
	// Layers is how many layers the node stands for; 0 outside of layers.
	Layers   int     `json:"layers,omitempty"`
	Children []*Node `json:"children,omitempty"`
}

// entry is a tensor with what its name says.
type entry struct {
	tensor.Tensor
	short string // without layer: "attn_q.weight"
	role  *names.Role
	place int // in the order of computation
	layer int // −1 outside of layers
}

// Of builds the tree of a model. Neighbouring layers with the same tensors and
// shapes become one node, unless each is asked for.
func Of(m *source.Model, each bool) *Node {
	entries := list(m)
	root := &Node{Name: "model", Types: []string{}}
	var layers [][]entry
	var before, after []*Node
	for _, e := range entries {
		switch {
		case e.layer >= 0:
			if n := len(layers); n == 0 || layers[n-1][0].layer != e.layer {
				layers = append(layers, nil)
			}
			layers[len(layers)-1] = append(layers[len(layers)-1], e)
		case e.role != nil && e.role.Group == "output":
			after = append(after, leaf(e))
		default:
			before = append(before, leaf(e))
		}
	}
	root.Children = before
	for len(layers) > 0 {
		n := 1
		for !each && n < len(layers) && layers[n][0].layer == layers[0][0].layer+n && alike(layers[0], layers[n]) {
			n++
		}
		root.Children = append(root.Children, layerNode(layers[:n]))
		layers = layers[n:]
	}
	root.Children = append(root.Children, after...)
	root.sum()
	return root
}

// list returns the tensors in the order of computation, those with unknown names
// in file order behind their kind.
func list(m *source.Model) []entry {
	all := make([]string, len(m.Tensors))
	for i, t := range m.Tensors {
		all[i] = t.Name
	}
	gemma := names.IsGemma(all)
	var entries []entry
	for _, t := range m.Tensors {
		e := entry{Tensor: t, short: t.Name, layer: -1, place: len(names.Roles) * 2}
		if n, ok := names.Parse(t.Name, gemma); ok {
			e.role, e.layer = n.Role, n.Layer
			e.place = 2 * slices.IndexFunc(names.Roles, func(r names.Role) bool { return r.GGUF == n.Role.GGUF })
			e.short = strings.TrimPrefix(n.GGUF(), fmt.Sprintf("blk.%d.", n.Layer))
			if n.Suffix == "bias" {
				e.place++
			}
		} else if layer, rest, ok := names.Layer(t.Name); ok {
			e.layer, e.short = layer, rest
		}
		entries = append(entries, e)
	}
	slices.SortStableFunc(entries, func(a, b entry) int {
		if a.layer != b.layer {
			return a.layer - b.layer
		}
		return a.place - b.place
	})
	return entries
}

// alike reports whether two layers have the same tensors and shapes.
func alike(a, b []entry) bool {
	return slices.EqualFunc(a, b, func(x, y entry) bool { return x.short == y.short && slices.Equal(x.Shape, y.Shape) })
}

func leaf(e entry) *Node {
	n := &Node{
		Name: e.short, Shape: e.Shape, Types: []string{e.Type.String()},
		Tensors: 1, Parameters: int64(e.Elements()), Bytes: int64(len(e.Data)),
	}
	if e.role != nil {
		n.What = e.role.What
		if strings.HasSuffix(e.short, ".bias") {
			n.What = "bias of the " + n.What
		}
	}
	return n
}

// layerNode makes one node of layers that are alike.
func layerNode(layers [][]entry) *Node {
	first, last := layers[0][0].layer, layers[len(layers)-1][0].layer
	node := &Node{Name: fmt.Sprintf("blk.%d", first), Layers: len(layers)}
	if last > first {
		node.Name = fmt.Sprintf("blk.%d … blk.%d", first, last)
	}
	for i, e := range layers[0] {
		n := leaf(e)
		for _, other := range layers[1:] {
			n.add(leaf(other[i]))
		}
		group := "other"
		if e.role != nil {
			group = e.role.Group
		}
		if k := len(node.Children); k == 0 || node.Children[k-1].Name != group {
			node.Children = append(node.Children, &Node{Name: group})
		}
		parent := node.Children[len(node.Children)-1]
		parent.Children = append(parent.Children, n)
	}
	return node
}

// sum fills in the sums of groups from their children.
func (n *Node) sum() {
	for _, c := range n.Children {
		if len(c.Children) > 0 {
			c.sum()
		}
		n.add(c)
	}
}

// add adds another node's sums.
func (n *Node) add(o *Node) {
	n.Tensors += o.Tensors
	n.Parameters += o.Parameters
	n.Bytes += o.Bytes
	for _, t := range o.Types {
		if !slices.Contains(n.Types, t) {
			n.Types = append(n.Types, t)
		}
	}
}
