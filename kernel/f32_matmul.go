package kernel

import "github.com/apr-engine/apr/tensor"

// The shape of the work in MatMulF32. Nothing here but matmulK changes a result.
const (
	tileRows = 4 // weight rows in one register tile

	// matmulK is the number of weights of a row that are dequantised and summed at
	// a time. The sums of the parts are added in order, which fixes the order of
	// addition whatever rows, tokens and partition are asked for; short parts also
	// keep rounding errors small. A multiple of every block length.
	matmulK = 1024

	panelRows   = 16  // weight rows dequantised together: 64 KiB, in L2
	panelTokens = 512 // tokens served by one panel: their sums take 32 KiB
)

// slotTile is the inner kernel of MatMulF32 and of attention scores:
//
//	acc[t*accStride+r] += Σ_k w[r*wStride+k]·x[t*xStride+k]
//
// for r in [0,4·⌈rows/4⌉), t in [0,tokens), k in [0,n). All tokens counts and
// positions in a tile give the same bits for the same data. w must hold a
// multiple of four rows; rows beyond the ones wanted are computed and ignored.
var slotTile = newSlot("f32/tile", tileGeneric)

// WorkspaceF32 is the scratch memory of MatMulF32, one for each worker; the zero
// value is ready. It grows on first use and is then reused.
type WorkspaceF32 struct {
	panel []float32 // (panelRows, matmulK) dequantised weights
	acc   []float32 // (tokens, panelRows) sums
}

// MatMulF32 multiplies rows of a weight matrix of any type with float32
// vectors, in float32 with fused multiply-add where the CPU has it:
//
//	out[t*stride+r] = Σ_k w[r][k]·x[t][k]   for r in [r0,r1), t in [t0,t1)
//
// w is (rows, cols), x (tokens, cols), both contiguous. Weights are dequantised
// a panel at a time into ws. At one CPU level the result for a row and a token
// is the same to the last bit however rows and tokens are partitioned. The
// relative error of a sum is about 1e-7 of Σ|w·x|.
func MatMulF32(out []float32, stride int, w tensor.Tensor, r0, r1 int, x []float32, t0, t1 int, ws *WorkspaceF32) {
	if r0 >= r1 || t0 >= t1 {
		return
	}
	cols := w.Cols()
	mustLen(len(x), t1*cols)
	mustLen(len(out), (t1-1)*stride+r1)
	mustLen(w.Rows(), r1)
	if ws.panel == nil {
		ws.panel = make([]float32, panelRows*matmulK)
	}
	if need := min(t1-t0, panelTokens) * panelRows; len(ws.acc) < need {
		ws.acc = make([]float32, need)
	}
	for t := t0; t < t1; t += panelTokens {
		tokens := min(panelTokens, t1-t)
		for r := r0; r < r1; r += panelRows {
			rows := min(panelRows, r1-r)
			matmulPanel(w, r, rows, x[t*cols:], tokens, ws)
			for i := range tokens {
				copy(out[(t+i)*stride+r:][:rows], ws.acc[i*panelRows:])
			}
		}
	}
}

// matmulPanel leaves the products of rows [r,r+rows) and the first tokens of x
// in ws.acc, (tokens, panelRows).
func matmulPanel(w tensor.Tensor, r, rows int, x []float32, tokens int, ws *WorkspaceF32) {
	cols := w.Cols()
	acc := ws.acc[:tokens*panelRows]
	clear(acc)
	blockLen, blockBytes := w.Type.BlockLen(), w.Type.BlockBytes()
	for k := 0; k < cols; k += matmulK {
		n := min(matmulK, cols-k)
		lo, hi := k/blockLen*blockBytes, (k+n)/blockLen*blockBytes
		for i := range rows {
			Dequantize(w.Type, ws.panel[i*matmulK:][:n], w.Row(r + i)[lo:hi])
		}
		padRows(ws.panel, rows, n)
		slotTile.active(acc, panelRows, ws.panel, matmulK, rows, x[k:], cols, tokens, n)
	}
}

// padRows zeroes the rows that complete the last register tile, so that stale
// numbers of an earlier panel are not computed with (they could be slow
// subnormals).
func padRows(panel []float32, rows, n int) {
	for i := rows; i%tileRows != 0; i++ {
		clear(panel[i*matmulK:][:n])
	}
}
