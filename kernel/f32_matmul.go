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

	// panelStride is the distance of rows in a panel. Not a power of two, or rows
	// would compete for the same few cache lines.
	panelStride = matmulK + 16

	panelTokens = 512 // most tokens served by one panel

	// fetchTokens is how many tokens are multiplied before more of the next weights
	// are asked for. A multiple of the tokens of every register tile.
	fetchTokens = 12
)

// panelRows is how many weight rows are dequantised together. For few tokens a
// panel that stays in L1 is best. For many, a tall one: the vectors of all
// tokens stream past it once, and it still fits L2.
func panelRows(tokens int) int {
	if tokens <= 8 {
		return tileRows
	}
	return 64
}

// slotTile is the inner kernel of MatMulF32 and of attention scores:
//
//	acc[t*accStride+r] += Σ_k w[r*wStride+k]·x[t*xStride+k]
//
// for r in [0,4·⌈rows/4⌉), t in [0,tokens), k in [0,n). All token counts and
// positions in a tile give the same bits for the same data. w must hold a
// multiple of four rows; rows beyond the ones wanted are computed and ignored.
var slotTile = newSlot("f32/tile", tileGeneric)

// WorkspaceF32 is the scratch memory of MatMulF32, one for each worker; the zero
// value is ready. It grows on first use and is then reused.
type WorkspaceF32 struct {
	panel []float32 // (rows, panelStride) dequantised weights
	acc   []float32 // (tokens, rows) sums
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
	r0 = fusedRows(out[t0*stride:], stride, w, r0, r1, x[t0*cols:t1*cols])
	if r0 == r1 {
		return
	}
	for t := t0; t < t1; t += panelTokens {
		tokens := min(panelTokens, t1-t)
		height := panelRows(tokens)
		ws.grow(height, tokens)
		for r := r0; r < r1; r += height {
			rows := min(height, r1-r)
			matmulPanel(w, r, rows, x[t*cols:], tokens, ws.acc[:tokens*height], height, ws.panel)
			for i := range tokens {
				copy(out[(t+i)*stride+r:][:rows], ws.acc[i*height:])
			}
		}
	}
}

func (ws *WorkspaceF32) grow(height, tokens int) {
	if need := height * panelStride; len(ws.panel) < need {
		ws.panel = make([]float32, need)
	}
	if need := tokens * height; len(ws.acc) < need {
		ws.acc = make([]float32, need)
	}
}

// matmulPanel leaves the products of rows [r,r+rows) and the first tokens of x
// in acc, (tokens, height). panel is scratch for height rows.
func matmulPanel(w tensor.Tensor, r, rows int, x []float32, tokens int, acc []float32, height int, panel []float32) {
	cols, rowBytes := w.Cols(), len(w.Data)/w.Rows()
	clear(acc)
	blockLen, blockBytes := w.Type.BlockLen(), w.Type.BlockBytes()
	expand := dequantSlot(w.Type).active // looked up once: rows are short
	for k := 0; k < cols; k += matmulK {
		n := min(matmulK, cols-k)
		lo, hi := k/blockLen*blockBytes, (k+n)/blockLen*blockBytes
		for i := range rows {
			row := w.Data[(r+i)*rowBytes:]
			expand(panel[i*panelStride:][:n], row[lo:hi])
		}
		padRows(panel, rows, n)
		next := f32Piece{w, r, min(r+rows, w.Rows()), k + n}
		if next.k == cols {
			next = f32Piece{w, r + rows, min(r+2*rows, w.Rows()), 0}
		}
		for t := 0; t < tokens; t += fetchTokens {
			some := min(fetchTokens, tokens-t)
			next.fetch(t, some, tokens)
			slotTile.active(acc[t*height:], height, panel, panelStride, rows, x[t*cols+k:], cols, some, n)
		}
	}
}

// f32Piece is matmulK weights, from k on, of each of rows [r0,r1) that exist.
type f32Piece struct {
	w      tensor.Tensor
	r0, r1 int
	k      int
}

// fetch asks for the share of the piece that n of all tokens have, from token t on. A
// little before each tile of tokens: of many at once the loads of the product wait.
func (p f32Piece) fetch(t, n, tokens int) {
	rows := max(0, p.r1-p.r0)
	from, to := p.r0+rows*t/tokens, p.r0+rows*(t+n)/tokens
	if from >= to {
		return
	}
	rowBytes := len(p.w.Data) / p.w.Rows()
	at := p.k / p.w.Type.BlockLen() * p.w.Type.BlockBytes()
	bytes := min(matmulK/p.w.Type.BlockLen()*p.w.Type.BlockBytes(), rowBytes-at)
	fetchRows(p.w.Data[from*rowBytes+at:], rowBytes, to-from, bytes)
}

// padRows zeroes the rows that complete the last register tile, so that stale
// numbers of an earlier panel are not computed with (they could be slow
// subnormals).
func padRows(panel []float32, rows, n int) {
	for i := rows; i%tileRows != 0; i++ {
		clear(panel[i*panelStride:][:n])
	}
}
