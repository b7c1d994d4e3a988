package contract

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v4"
)

// Definition is the SHA-256, in hex, of what evidence for a falsifier is about:
// its prediction, its test with every threshold, and the equation or obligation
// that its rule names. Comments, formatting, statuses and if_fails are not part
// of it.
func (c *Contract) Definition(f *Falsifier) string {
	var b bytes.Buffer
	part := func(name, text string) { b.WriteString(name + "=" + strconv.Quote(text) + "\n") }
	part("id", f.ID.Value)
	part("rule", f.Rule.Value)
	part("prediction", f.Prediction.Value)
	b.WriteString("test=")
	canonical(&b, member(f.node, "test"))
	for _, eq := range c.Equations {
		if eq.Name == f.Rule.Value {
			part("\nformula", eq.Formula.Value)
			for _, inv := range eq.Invariants {
				part("invariant", inv.Value)
			}
		}
	}
	for _, ob := range c.Obligations {
		if ob.ID.Set && ob.ID.Value == f.Rule.Value {
			part("\nobligation", ob.Property.Value+"\n"+ob.Formal.Value)
			if ob.Tolerance != nil {
				part("tolerance", strconv.FormatFloat(ob.Tolerance.Value, 'g', -1, 64))
			}
		}
	}
	sum := sha256.Sum256(b.Bytes())
	return hex.EncodeToString(sum[:])
}

// canonical writes a node's meaning: keys in order of their names, scalars as
// text. How a text is quoted or folded makes no difference.
func canonical(b *bytes.Buffer, n *node) {
	switch {
	case isNull(n):
		b.WriteString("null")
	case n.Kind == yaml.MappingNode:
		type pair struct {
			key   string
			value *node
		}
		var pairs []pair
		for i := 0; i+1 < len(n.Content); i += 2 {
			pairs = append(pairs, pair{n.Content[i].Value, n.Content[i+1]})
		}
		slices.SortStableFunc(pairs, func(x, y pair) int { return bytes.Compare([]byte(x.key), []byte(y.key)) })
		b.WriteByte('{')
		for _, p := range pairs {
			writeJSONString(b, p.key)
			b.WriteByte(':')
			canonical(b, p.value)
			b.WriteByte(',')
		}
		b.WriteByte('}')
	case n.Kind == yaml.SequenceNode:
		b.WriteByte('[')
		for _, item := range n.Content {
			canonical(b, item)
			b.WriteByte(',')
		}
		b.WriteByte(']')
	default:
		writeJSONString(b, n.Value)
	}
}

// writeJSONString writes a text with all that could be mistaken for structure
// escaped: two different definitions never have one canonical text.
func writeJSONString(b *bytes.Buffer, s string) {
	q, err := json.Marshal(s)
	if err != nil { // impossible for a string
		q = []byte(strconv.Quote(s))
	}
	b.Write(q)
}
