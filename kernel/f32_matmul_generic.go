package kernel

func tileGeneric(acc []float32, accStride int, w []float32, wStride, rows int, x []float32, xStride, tokens, n int) {
	for r := range rows {
		row := w[r*wStride:][:n]
		for t := range tokens {
			acc[t*accStride+r] += dotF32Generic(row, x[t*xStride:][:n])
		}
	}
}
