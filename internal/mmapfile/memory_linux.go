package mmapfile

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// largePage is the size of a large page on amd64 and most of arm64: a start on such a
// border lets all of Data lie in them.
const largePage = 2 << 20

func newMemory(size int) *Memory {
	all, err := unix.Mmap(-1, 0, size+largePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return &Memory{Data: make([]byte, size)}
	}
	_ = unix.Madvise(all, unix.MADV_HUGEPAGE) // a system without them gives small ones
	skip := -int(address(all)) & (largePage - 1)
	return &Memory{Data: all[skip : skip+size], mapped: all}
}

// Close gives the memory back; Data must not be used any more.
func (m *Memory) Close() error {
	mapped := m.mapped
	m.Data, m.mapped = nil, nil
	if mapped == nil {
		return nil
	}
	return unix.Munmap(mapped)
}

func address(data []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(data))) }

// large adds up what the kernel says of the mappings that Data lies in.
func (m *Memory) large() int {
	f, err := os.Open("/proc/self/smaps")
	if err != nil || len(m.Data) == 0 {
		return 0
	}
	defer f.Close()
	from := address(m.Data)
	to := from + uintptr(len(m.Data))
	within, total := false, 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var start, end uintptr
		var kb int
		line := lines.Text()
		if strings.HasPrefix(line, "AnonHugePages:") {
			if _, err := fmt.Sscanf(line, "AnonHugePages: %d kB", &kb); err == nil && within {
				total += kb << 10
			}
		} else if _, err := fmt.Sscanf(line, "%x-%x ", &start, &end); err == nil {
			within = start < to && from < end
		}
	}
	return total
}
