package quant

// Formats that can be read but not written.
var quantizeQ4_0, quantizeQ4_1, quantizeQ5_0, quantizeQ5_1, quantizeQ8_0,
	quantizeQ2K, quantizeQ3K, quantizeQ4K, quantizeQ5K, quantizeQ6K,
	quantizeIQ4NL, quantizeIQ4XS func(dst []byte, src, weights []float32)
