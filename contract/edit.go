package contract

// lineOffsets returns the byte offset at which each line starts.
func lineOffsets(src []byte) []int {
	lines := []int{0}
	for i, b := range src {
		if b == '\n' {
			lines = append(lines, i+1)
		}
	}
	return lines
}
