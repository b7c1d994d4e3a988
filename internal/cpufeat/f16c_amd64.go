package cpufeat

// cpuid executes CPUID with the given leaf in EAX and 0 in ECX.
func cpuid(leaf uint32) (eax, ebx, ecx, edx uint32)

// hasF16C reports the half-precision conversions; golang.org/x/sys/cpu does not.
func hasF16C() bool {
	const leaf, bit = 1, 29
	_, _, ecx, _ := cpuid(leaf)
	return ecx&(1<<bit) != 0
}
