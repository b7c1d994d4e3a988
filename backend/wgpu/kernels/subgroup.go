package kernels

import (
	"encoding/binary"

	"github.com/apr-engine/apr/driver/wgpu"
)

// SubgroupProbe finds out what the driver may not tell: the size of subgroups, and
// whether they are made of neighbouring threads in order, which shuffles need. It
// binds one buffer of ProbeBytes zeros; SubgroupSize reads it afterwards. Only for
// devices with subgroups.
func SubgroupProbe() Kernel {
	return Kernel{
		Name:     "subgroup probe",
		WGSL:     expand("probe.wgsl", nil),
		Bindings: []Binding{{"out", wgpu.ReadWrite}},
		Grid:     [3]int{32, 1, 1},
	}
}

// ProbeBytes is the size of the probe's buffer.
const ProbeBytes = 16

// SubgroupSize is the size of all subgroups seen by the probe; 0 if they differed or
// their threads were not in order.
func SubgroupSize(probe []byte) int {
	or, and, wrong, bad := binary.LittleEndian.Uint32(probe), ^binary.LittleEndian.Uint32(probe[4:]), binary.LittleEndian.Uint32(probe[8:]), binary.LittleEndian.Uint32(probe[12:])
	if or != and || wrong != 0 || bad != 0 {
		return 0
	}
	return int(or)
}
