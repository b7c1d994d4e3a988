package cpu

import (
	"slices"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/kernel"
)

// Attention has a name of its own from the position on at which it merges blocks, and
// for few tokens chunks.
func TestAttentionNames(t *testing.T) {
	e := &executor{}
	step := func(held, tokens int) []string {
		span := backend.Span{Seq: holding(held), Tokens: make([]int32, tokens)}
		return e.shape([]backend.Span{span}).attention("attention")
	}
	for _, tt := range []struct {
		held, tokens int
		want         string
	}{
		{0, 1, "attention/decode"},
		{kernel.AttentionBlock, 1, "attention/decode/blocks"},
		{kernel.AttentionChunk - 1, 1, "attention/decode/blocks"},
		{kernel.AttentionChunk, 1, "attention/decode/chunks"},
		{kernel.AttentionChunk, 3, "attention/few/chunks"},
		{kernel.AttentionChunk, 100, "attention/batch/blocks"},
	} {
		if got := step(tt.held, tt.tokens); !slices.Equal(got, []string{tt.want}) {
			t.Errorf("%d tokens behind %d: %q, want %s", tt.tokens, tt.held, got, tt.want)
		}
	}
}

// holding is a sequence of so many tokens.
type holding int

func (h holding) Len() int         { return int(h) }
func (holding) Capacity() int      { return 1 << 20 }
func (holding) Truncate(int) error { return nil }
func (holding) Close() error       { return nil }
