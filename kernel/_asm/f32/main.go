// Command f32 writes the assembly of the float32 kernels, f32_amd64.s in
// package kernel.
package main

import (
	"github.com/mmcloughlin/avo/build"

	"github.com/apr-engine/apr/kernel/_asm/lanes"
)

func main() {
	c := build.NewContext()
	c.ConstraintExpr("!noasm")
	for _, g := range lanes.Levels(c) {
		vectors(g)
		nonlinear(g)
		rope(g)
		products(g)
		attention(g)
		prompt(g)
		peak(g)
	}
	pause(c)
	prefetchPages(c)
	lanes.Write(c, "f32")
}
