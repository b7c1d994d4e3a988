package kernel

func tileGeneric(acc []float32, accStride int, w []float32, wStride, rows int, x []float32, xStride, tokens, n int) {
	for r := range rows {
		row := w[r*wStride:][:n]
		for t := range tokens {
			acc[t*accStride+r] += dotF32Generic(row, x[t*xStride:][:n])
		}
	}
}

func tileF16Generic(acc []float32, accStride int, w []uint16, wStride, rows int, x []float32, xStride, tokens, n int) {
	row := make([]float32, n)
	for r := range rows {
		f16ToF32Generic(row, w[r*wStride:][:n])
		for t := range tokens {
			acc[t*accStride+r] += dotF32Generic(row, x[t*xStride:][:n])
		}
	}
}
